package relay

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// family is an index: 0 for IPv4, 1 for IPv6.
type family int

const (
	four family = 0
	six  family = 1
)

// The values of REQUESTED-ADDRESS-FAMILY and its kin, RFC 8656 section 18.6.
const (
	wireFour = 0x01
	wireSix  = 0x02
)

func familyOf(a netip.Addr) family {
	if a.Unmap().Is4() {
		return four
	}
	return six
}

func (f family) wire() byte { return byte(f) + wireFour }

func (f family) unspecified() netip.Addr {
	if f == four {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (f family) loopback() netip.Addr {
	if f == four {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// addresses chooses the addresses of relays.
type addresses struct {
	public atomic.Pointer[[2]netip.Addr] // what SetPublic said; invalid: nothing for that family
	lack   func(family) bool             // Config.lack
	seen   atomic.Pointer[host]
	look   sync.Mutex // held by who looks at the host anew
}

func (a *addresses) set(list []netip.Addr) {
	var public [2]netip.Addr
	for _, p := range list {
		public[familyOf(p)] = p.Unmap()
	}
	a.public.Store(&public)
}

// choose returns the address that a client is told, and the one to bind: the same where it is the host's own, the wildcard
// where it belongs to a router in front. ok is false where the host has no address of the family.
func (a *addresses) choose(f family, client netip.Addr, now time.Time) (advertised, bind netip.Addr, ok bool) {
	if a.lack != nil && a.lack(f) {
		return netip.Addr{}, netip.Addr{}, false
	}
	h := a.host(now)
	if public := a.public.Load()[f]; public.IsValid() {
		if h.has(public) {
			return public, public, true
		}
		return public, f.unspecified(), h.hasFamily(f)
	}
	if client.IsLoopback() && h.has(f.loopback()) {
		return f.loopback(), f.loopback(), true
	}
	if f == six && h.primary[six].IsLoopback() && !client.IsLoopback() && !h.primary[four].IsLoopback() {
		// ::1 is not IPv6 to somebody who came from elsewhere. 127.0.0.1 on a host without IPv4 is still good for something: browsers ask
		// for no other family, and two relays of this process meet inside it.
		return netip.Addr{}, netip.Addr{}, false
	}
	return h.primary[f], h.primary[f], h.primary[f].IsValid()
}

// hostAge is how long a look at the host's interfaces is good for: they change, but not between two allocations.
const hostAge = 2 * time.Second

// host is what the host's interfaces were at one time.
type host struct {
	at       time.Time
	prefixes []netip.Prefix // the addresses, with the subnets they are in
	primary  [2]netip.Addr  // by family; invalid: the host has none
}

// host looks at the host's interfaces, or returns the last look if it is young.
func (a *addresses) host(now time.Time) *host {
	if h := a.seen.Load(); h != nil && now.Sub(h.at) < hostAge {
		return h
	}
	a.look.Lock()
	defer a.look.Unlock()
	if h := a.seen.Load(); h != nil && now.Sub(h.at) < hostAge {
		return h
	}
	h := &host{at: now, prefixes: hostPrefixes()}
	if old := a.seen.Load(); len(h.prefixes) == 0 && old != nil {
		return old // a host out of files cannot even look at itself
	}
	h.primary = [2]netip.Addr{h.primaryOf(four), h.primaryOf(six)}
	a.seen.Store(h)
	return h
}

func (h *host) has(a netip.Addr) bool {
	for _, p := range h.prefixes {
		if p.Addr() == a || a.IsLoopback() && p.Addr().IsLoopback() && p.Contains(a) {
			return true
		}
	}
	return false
}

func (h *host) hasFamily(f family) bool {
	for _, p := range h.prefixes {
		if familyOf(p.Addr()) == f {
			return true
		}
	}
	return false
}

// primaryOf is the address the host uses towards the Internet, else any that others could reach, else loopback.
func (h *host) primaryOf(f family) netip.Addr {
	// Connecting a datagram socket sends nothing: it asks the routing table. The addresses are documentation's.
	target, network := "203.0.113.1:9", "udp4"
	if f == six {
		target, network = "[2001:db8::1]:9", "udp6"
	}
	if c, err := net.Dial(network, target); err == nil {
		local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
		if !local.IsLoopback() && !local.IsLinkLocalUnicast() && !local.IsUnspecified() {
			return local
		}
	}
	var loopback netip.Addr
	for _, p := range h.prefixes {
		a := p.Addr()
		switch {
		case familyOf(a) != f || a.IsLinkLocalUnicast():
		case a.IsLoopback():
			loopback = f.loopback()
		default:
			return a
		}
	}
	return loopback
}

// hostPrefixes lists the host's addresses with the subnets they are in.
func hostPrefixes() []netip.Prefix {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range list {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		ones, _ := n.Mask.Size()
		if addr = addr.Unmap(); addr.Is4() && len(n.Mask) == net.IPv6len {
			ones -= 96
		}
		out = append(out, netip.PrefixFrom(addr, ones))
	}
	return out
}

// canonical strips the disguises of an IPv4 address: mapped, translated (RFC 6052) and 6to4 (RFC 3056). An address inside
// another is judged as what it reaches.
func canonical(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case compatible.Contains(a) && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:16]))
	}
	return a
}
