package udp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize is the space for an IPV6_PKTINFO control message, the larger of the two kinds, and one with a segment's size.
const controlSize = 64

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

// fromControl finds in a received datagram's control data the address it came to, and the size of the datagrams that the
// kernel has joined in it; 0: it is one.
func fromControl(control []byte) (local netip.Addr, segment int) {
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(control) {
			break
		}
		data := control[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			local = netip.AddrFrom4([4]byte(data[8:12]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			local = netip.AddrFrom16([16]byte(data[:16]))
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			segment = int(binary.NativeEndian.Uint32(data))
		}
		control = control[min(len(control), unix.CmsgSpace(len(data))):]
	}
	return local, segment
}

// putSegment writes the control message that makes the kernel cut a message into datagrams, and returns its size.
func putSegment(control []byte, size int) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(size))
	return unix.CmsgSpace(2)
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
