package relay

import (
	"fmt"
	"net/netip"
	"strings"
)

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	compatible = netip.MustParsePrefix("::/96")
)

// denied is what no relay should reach unless told: everything that is not an ordinary address of the public Internet
// (RFC 6890 and its registry). It does not change.
var denied = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4", "169.254.169.254/32", "fd00:ec2::254/128", // the last two: clouds' metadata services
	"::/8", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
	"fec0::/10", "ff00::/8",
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Policy says which peers a relay may reach. The zero Policy is the default: public addresses only. Rules compare canonical
// addresses, so an IPv4 address in IPv6 clothes is judged as IPv4, and the clothes may be refused besides. The most specific
// rule wins, and deny wins a tie.
type Policy struct {
	rules []rule // beside the default ones
}

type rule struct {
	prefix netip.Prefix
	allow  bool
}

// ParsePolicy makes a policy of CIDRs or single addresses. The word "lan" stands for the subnets of the host's own interfaces,
// loopback left out, as they are now. Every fault is reported.
func ParsePolicy(allow, deny []string) (*Policy, error) {
	p := &Policy{}
	var faults []string
	for _, side := range []struct {
		list  []string
		allow bool
	}{{allow, true}, {deny, false}} {
		for _, text := range side.list {
			if strings.EqualFold(strings.TrimSpace(text), "lan") {
				for _, n := range lan() {
					p.rules = append(p.rules, rule{n, side.allow})
					if n.Addr().Is4() && n.Bits() < 31 {
						p.rules = append(p.rules, rule{broadcast(n), false})
					}
				}
				continue
			}
			n, err := parsePrefix(strings.TrimSpace(text))
			if err != nil {
				faults = append(faults, fmt.Sprintf("%q", text))
				continue
			}
			p.rules = append(p.rules, rule{n, side.allow})
		}
	}
	if faults != nil {
		return nil, fmt.Errorf("%w: peer rule %s: give an address, a network such as 10.0.0.0/8, or lan", ErrConfig, strings.Join(faults, ", "))
	}
	return p, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		a = canonical(a)
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	if n.Addr().Is4In6() && n.Bits() >= 96 {
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return n.Masked(), nil
}

// lan lists the subnets of the host's own interfaces.
func lan() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range hostPrefixes() {
		if !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Masked())
		}
	}
	return out
}

// broadcast is the subnet's last address, which reaches all of it.
func broadcast(n netip.Prefix) netip.Prefix {
	b := n.Masked().Addr().As4()
	for i := n.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), 32)
}

// Allow says whether a relay may send to the peer. Ports do not matter to it.
func (p *Policy) Allow(peer netip.AddrPort) bool {
	a := canonical(peer.Addr())
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false // no rule makes these a peer
	}
	// A rule may also name the clothes themselves: without 64:ff9b::/96 nobody is reached by way of a translator.
	if worn := peer.Addr().Unmap().WithZone(""); worn != a && !p.decide(worn, nil) {
		return false
	}
	return p.decide(a, denied)
}

// decide applies the rules, the built-in ones first.
func (p *Policy) decide(a netip.Addr, builtin []netip.Prefix) bool {
	best, allow := 0, true // bits of the deciding rule so far; a rule of no bits at all beats nothing
	for _, n := range builtin {
		if n.Contains(a) && n.Bits() > best {
			best, allow = n.Bits(), false
		}
	}
	best-- // a rule as wide as a default one, such as allow 10.0.0.0/8, was written to change it
	for _, r := range p.rules {
		if r.prefix.Contains(a) && (r.prefix.Bits() > best || r.prefix.Bits() == best && !r.allow) {
			best, allow = r.prefix.Bits(), r.allow
		}
	}
	return allow
}
