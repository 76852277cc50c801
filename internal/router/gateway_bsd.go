//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package router

import (
	"net/netip"
	"syscall"

	"golang.org/x/net/route"
)

// defaultGateway asks the kernel for its routing table.
func defaultGateway() (netip.Addr, error) {
	table, err := route.FetchRIB(syscall.AF_INET, route.RIBTypeRoute, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	messages, err := route.ParseRIB(route.RIBTypeRoute, table)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, m := range messages {
		r, ok := m.(*route.RouteMessage)
		if !ok || r.Flags&(syscall.RTF_UP|syscall.RTF_GATEWAY) != syscall.RTF_UP|syscall.RTF_GATEWAY || len(r.Addrs) < 2 {
			continue
		}
		to, okTo := r.Addrs[0].(*route.Inet4Addr)
		via, okVia := r.Addrs[1].(*route.Inet4Addr)
		if !okTo || !okVia || to.IP != [4]byte{} {
			continue
		}
		if len(r.Addrs) > 2 { // a mask, where the route is not of one host
			if mask, ok := r.Addrs[2].(*route.Inet4Addr); ok && mask.IP != [4]byte{} {
				continue
			}
		}
		return netip.AddrFrom4(via.IP), nil
	}
	return netip.Addr{}, nil
}
