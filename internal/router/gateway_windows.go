package router

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/windows"
)

// defaultGateway asks the system for its routing table.
func defaultGateway() (netip.Addr, error) {
	var table *windows.MibIpForwardTable2
	if err := windows.GetIpForwardTable2(windows.AF_INET, &table); err != nil {
		return netip.Addr{}, err
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	var best netip.Addr
	least := uint64(1) << 33
	for _, row := range table.Rows() {
		if row.DestinationPrefix.PrefixLength != 0 || row.Loopback != 0 || row.NextHop.Family != windows.AF_INET {
			continue
		}
		via := netip.AddrFrom4((*windows.RawSockaddrInet4)(unsafe.Pointer(&row.NextHop)).Addr)
		if metric := uint64(row.Metric); !via.IsUnspecified() && metric < least {
			least, best = metric, via
		}
	}
	return best, nil
}
