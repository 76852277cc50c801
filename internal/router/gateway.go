package router

import (
	"fmt"
	"net"
	"net/netip"
)

// Gateway is the default gateway of IPv4. ErrNone: there is none, or it cannot be told on this system.
func Gateway() (netip.Addr, error) {
	addr, err := defaultGateway()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: default gateway: %w", ErrNone, err)
	}
	if !addr.IsValid() || addr.IsUnspecified() {
		return netip.Addr{}, fmt.Errorf("%w: there is no default gateway", ErrNone)
	}
	return addr, nil
}

// localTowards asks the routing table; nothing is sent.
func localTowards(gateway netip.Addr) (netip.Addr, error) {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(gateway, 9)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
