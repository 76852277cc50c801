package nat

import (
	"fmt"
	"net/netip"
	"slices"
)

// shared is what providers use between themselves and the customers of one public address (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10") // does not change

// nobodys are given to no host of the Internet: "this network", what providers use between DS-Lite's ends, benchmarks,
// reserved (RFC 6890).
var nobodys = [...]netip.Prefix{ // does not change
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"),
}

// reachable says whether an address can be one of the public Internet. Those of documentation count: nobody is given them,
// and tests are.
func reachable(a netip.Addr) bool {
	for _, p := range nobodys {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !(a.Is4() && shared.Contains(a)) && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}

// conclude joins what the servers and the router have said.
func conclude(r *Report, host []netip.Addr) {
	wan := r.Router.WAN
	v4 := &r.IPv4
	own := func(a netip.Addr) bool { return slices.Contains(host, a) }
	switch {
	case v4.Mapping == None:
		// No translation: what a router says is about others.
	case wan.IsValid() && !reachable(wan):
		r.CGNAT = true
		r.Why = fmt.Sprintf("the router's own address outside is %s, which is not public: the provider shares one address among customers, or a second router stands between", wan)
		if shared.Contains(wan) {
			r.Why = fmt.Sprintf("the router's own address outside is %s, from the range that providers share among customers (CGNAT)", wan)
		}
	case wan.IsValid() && v4.Public.IsValid() && wan != v4.Public:
		r.CGNAT = true
		r.Why = fmt.Sprintf("the router says that its address outside is %s, but servers see %s: the provider translates as well, or the traffic takes another way out (VPN)", wan, v4.Public)
	case r.Router.NoWAN && v4.Public.IsValid():
		r.CGNAT = true
		r.Why = fmt.Sprintf("the router says that it has no public IPv4 address, but servers see %s: the provider shares that among customers (CGNAT, DS-Lite), or a second router stands between", v4.Public)
	case wan.IsValid() && !v4.Public.IsValid():
		v4.Public, v4.Source = wan, "router"
	}
	if !r.CGNAT && v4.Mapping != None && v4.Public.IsValid() {
		// A host that is connected to its provider directly has the shared address itself. Others have such addresses too, of
		// private networks (VPN), beside an ordinary one.
		var ordinary, inside bool
		var at netip.Addr
		for _, a := range host {
			switch {
			case !a.Is4() || a.IsLoopback() || a.IsLinkLocalUnicast():
			case shared.Contains(a):
				inside, at = true, a
			default:
				ordinary = true
			}
		}
		if inside && !ordinary {
			r.CGNAT = true
			r.Why = fmt.Sprintf("this host's address is %s, from the range that providers share among customers (CGNAT)", at)
		}
	}
	for _, f := range []*Family{&r.IPv4, &r.IPv6} {
		if f.Public.IsValid() && own(f.Public) {
			f.Mapping = None
		}
	}
	if !r.IPv4.Public.IsValid() && !r.IPv6.Public.IsValid() {
		r.Err = "no STUN server and no router has told a public address"
	}
}
