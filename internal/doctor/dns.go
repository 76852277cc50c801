package doctor

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Names are host names, what they resolve to, and where they should lead.
type Names struct {
	Asked  []Resolved
	Wanted []netip.Addr // what the records are to say
	Own    []netip.Addr // of this machine: as good, where others reach them
}

// Resolved is what the DNS says of a name.
type Resolved struct {
	Name  string
	Addrs []netip.Addr
	Err   error
}

// dns judges whether the names of --domain lead here.
func dns(n Names) Check {
	if len(n.Asked) == 0 {
		return skipped(NameDNS, "no name to look up (--domain)")
	}
	var saw []string
	worst := Check{Verdict: OK}
	for _, r := range n.Asked {
		c := dnsName(n, r)
		if c.Verdict != OK && worst.Verdict != Warn || c.Verdict == Fail {
			worst = c
		}
		if c.Verdict == Fail {
			break
		}
		saw = append(saw, c.Saw)
	}
	if worst.Verdict != OK {
		return worst
	}
	return good(NameDNS, strings.Join(saw, "; "))
}

// dnsName judges one of them.
func dnsName(n Names, r Resolved) Check {
	here := texts(n.Wanted, " or ")
	if here == "" {
		here = "this server's public address"
	}
	make := "make an A record (AAAA for IPv6) of " + r.Name + " with " + here
	var strays, inside []netip.Addr
	loopback := len(r.Addrs) > 0
	for _, a := range r.Addrs {
		loopback = loopback && a.IsLoopback()
		switch {
		case slices.Contains(n.Wanted, a):
		case !slices.Contains(n.Own, a):
			strays = append(strays, a)
		case a.IsPrivate():
			inside = append(inside, a)
		}
	}
	is := r.Name + " is " + texts(r.Addrs, ", ")
	switch {
	case r.Err != nil:
		return failure(NameDNS, fmt.Sprintf("%s is not found: %v", r.Name, lookupCause(r.Err)), make)
	case len(r.Addrs) == 0:
		return failure(NameDNS, r.Name+" has no address", make)
	case loopback:
		return warning(NameDNS, is+" on this machine, by its own hosts file; what the DNS tells others is not seen",
			"take the name out of /etc/hosts, or look it up elsewhere: it is to lead to "+here)
	case len(n.Wanted) == 0:
		return skipped(NameDNS, is+"; where this server is reached is not known")
	case len(strays) > 0:
		return failure(NameDNS, r.Name+" leads to "+texts(strays, ", ")+", not to "+here, "change the A and AAAA records of "+r.Name+" to "+here+" alone; where a load balancer or tunnel stands there, this is right")
	case len(inside) > 0:
		return warning(NameDNS, is+", which leads here on this network only", "where the DNS tells others something else, all is well; else change the A record of "+r.Name+" to "+here)
	}
	return good(NameDNS, is)
}

func texts(addrs []netip.Addr, between string) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, between)
}

func lookupCause(err error) string {
	if d, ok := err.(*net.DNSError); ok {
		return d.Err
	}
	return err.Error()
}
