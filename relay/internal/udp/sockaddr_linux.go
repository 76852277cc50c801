package udp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize is the space for one IPV6_PKTINFO control message, the larger of the two kinds.
const controlSize = 40

func fromSockaddr(sa *unix.RawSockaddrInet6) netip.AddrPort {
	if sa.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), networkOrder(four.Port))
	}
	addr := netip.AddrFrom16(sa.Addr)
	if sa.Scope_id != 0 && addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
	}
	return netip.AddrPortFrom(addr, networkOrder(sa.Port))
}

// toSockaddr writes the address in the socket's family and returns its size.
func toSockaddr(sa *unix.RawSockaddrInet6, to netip.AddrPort, six bool) uint32 {
	if !six {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		four.Family = unix.AF_INET
		four.Port = networkOrder(to.Port())
		if a := to.Addr().Unmap(); a.Is4() {
			four.Addr = a.As4()
		} else {
			// No address of this family: port 0 makes the system refuse it.
			four.Addr, four.Port = [4]byte{}, 0
		}
		return unix.SizeofSockaddrInet4
	}
	sa.Family = unix.AF_INET6
	sa.Port = networkOrder(to.Port())
	sa.Flowinfo = 0
	sa.Addr = to.Addr().As16()
	sa.Scope_id = 0
	if zone := to.Addr().Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			sa.Scope_id = uint32(n)
		}
	}
	return unix.SizeofSockaddrInet6
}

// networkOrder turns a port between the machine's order and the network's.
func networkOrder(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}

// localOf finds the destination address in a received datagram's control data.
func localOf(control []byte) netip.Addr {
	if len(control) < unix.SizeofCmsghdr {
		return netip.Addr{}
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := control[unix.CmsgLen(0):]
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		return netip.AddrFrom4([4]byte(data[8:12]))
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		return netip.AddrFrom16([16]byte(data[:16]))
	}
	return netip.Addr{}
}

// putLocal writes the control message that makes a datagram leave from the address, and returns its size.
func putLocal(control *[controlSize]byte, from netip.Addr, six bool) int {
	clear(control[:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := control[unix.CmsgLen(0):]
	if six {
		h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		a := from.As16()
		copy(data, a[:])
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	if a := from.Unmap(); a.Is4() {
		four := a.As4()
		copy(data[4:8], four[:])
	}
	return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
}
