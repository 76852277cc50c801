package nat

import (
	"net/netip"
	"strings"
	"testing"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestSharedAddressIsRecognised(t *testing.T) {
	home := []string{"127.0.0.1", "192.168.1.7", "fe80::1"}
	for name, c := range map[string]struct {
		stun, wan string
		host      []string
		cgnat     bool
		why       string
		public    string // to tell clients
	}{
		"an ordinary home":                {"203.0.113.5", "203.0.113.5", home, false, "", "203.0.113.5"},
		"without a router to ask":         {"203.0.113.5", "", home, false, "", "203.0.113.5"},
		"the router alone":                {"", "203.0.113.5", home, false, "", "203.0.113.5"},
		"the router is inside":            {"203.0.113.5", "100.64.3.4", home, true, "100.64.3.4, from the range that providers share", ""},
		"a router without IPv4":           {"203.0.113.5", "192.0.0.2", home, true, "192.0.0.2, which is not public", ""},
		"two routers":                     {"203.0.113.5", "192.168.178.20", home, true, "second router", ""},
		"the router inside, nobody else":  {"", "100.64.3.4", home, true, "100.64.3.4", ""},
		"they differ":                     {"203.0.113.5", "198.51.100.8", home, true, "servers see 203.0.113.5", ""},
		"no router between":               {"203.0.113.5", "", []string{"127.0.0.1", "100.70.0.1"}, true, "this host's address is 100.70.0.1", ""},
		"a VPN's address beside":          {"203.0.113.5", "203.0.113.5", append(home, "100.70.0.1"), false, "", "203.0.113.5"},
		"the host's own, router or not":   {"203.0.113.5", "198.51.100.8", []string{"203.0.113.5"}, false, "", ""},
		"the router's and the host's own": {"", "203.0.113.5", []string{"203.0.113.5"}, false, "", ""},
		"the router has none":             {"203.0.113.5", "none", home, true, "no public IPv4 address, but servers see 203.0.113.5", ""},
		"the router is not connected":     {"", "none", home, false, "", ""},
		"nothing":                         {"", "", home, false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var r Report
			host := addrs(c.host...)
			if c.stun != "" {
				r.IPv4.Answers = []Answer{{Server: "s", Mapped: netip.AddrPortFrom(netip.MustParseAddr(c.stun), 1)}}
				r.IPv4.compare(host)
			}
			if r.Router.NoWAN = c.wan == "none"; !r.Router.NoWAN && c.wan != "" {
				r.Router.WAN = netip.MustParseAddr(c.wan)
			}
			conclude(&r, host)
			public := ""
			if list := r.Addrs(); len(list) > 0 {
				public = list[0].String()
			}
			if r.CGNAT != c.cgnat || !strings.Contains(r.Why, c.why) || (r.Why == "") != (c.why == "") || public != c.public {
				t.Errorf("got CGNAT %v because %q, public %q", r.CGNAT, r.Why, public)
			}
		})
	}
}
