package app

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"callbox/bus"
	"callbox/signal"
)

func flat(list []signal.ICEServer) (urls []string) {
	for _, s := range list {
		urls = append(urls, s.URLs...)
	}
	return urls
}

func TestICEServersComeInTheOrderToTry(t *testing.T) {
	tls := func(string) bool { return true }
	for name, c := range map[string]struct {
		offer iceOffer
		want  []string
	}{
		"the host that was asked": {
			iceOffer{Host: "call.example", Port: 8080, UDP: true},
			[]string{"stun:call.example:8080", "turn:call.example:8080?transport=udp", "turn:call.example:8080?transport=tcp"},
		},
		"IPv6 host with TLS": {
			iceOffer{Host: "::1", Port: 443, UDP: true, TLS: tls},
			[]string{"stun:[::1]:443", "turn:[::1]:443?transport=udp", "turn:[::1]:443?transport=tcp", "turns:[::1]:443?transport=tcp"},
		},
		"public addresses before the host": {
			iceOffer{Host: "call.example", Port: 1, UDP: true, Public: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}},
			[]string{
				"stun:192.0.2.1:1", "turn:192.0.2.1:1?transport=udp", "turn:[2001:db8::1]:1?transport=udp",
				"turn:192.0.2.1:1?transport=tcp", "turn:[2001:db8::1]:1?transport=tcp",
			},
		},
		"a name of its own before all": {
			iceOffer{Host: "call.example", Name: "turn1.example", Port: 1, UDP: true, Public: []netip.Addr{addr("192.0.2.1")}},
			[]string{"stun:turn1.example:1", "turn:turn1.example:1?transport=udp", "turn:turn1.example:1?transport=tcp"},
		},
		"further listeners": {
			iceOffer{Host: "h", Port: 1, UDP: true, TLS: tls, Extra: []turnPort{{"udp", 3478}, {"tls", 5349}}},
			[]string{
				"stun:h:1", "turn:h:1?transport=udp", "turn:h:3478?transport=udp", "turn:h:1?transport=tcp",
				"turns:h:1?transport=tcp", "turns:h:5349?transport=tcp",
			},
		},
		"advertised URLs replace, others' are added": {
			iceOffer{
				Host: "h", Port: 1, UDP: true, URLs: []string{"turns:lb.example:443?transport=tcp"},
				Others: []signal.ICEServer{{URLs: []string{"stun:stun.example:19302"}}},
			},
			[]string{"turns:lb.example:443?transport=tcp", "stun:stun.example:19302"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := flat(c.offer.servers()); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestOnlyTURNCarriesCredentials(t *testing.T) {
	o := iceOffer{Host: "h", Port: 1, UDP: true, Username: "u", Credential: "c", Others: []signal.ICEServer{{URLs: []string{"turn:x:1?transport=udp"}, Username: "a", Credential: "b"}}}
	got := o.servers()
	if len(got) != 3 || got[0].Username != "" || got[1].Username != "u" || got[1].Credential != "c" || got[2].Username != "a" {
		t.Errorf("got %+v", got)
	}
}

func TestNodesAreOfferedByNearnessAndLoad(t *testing.T) {
	node := func(name string, load int, draining bool) bus.NodeInfo {
		return bus.NodeInfo{ID: bus.NodeID(name), TURN: []string{"turn:" + name + ":1?transport=udp"}, Allocations: load, Draining: draining}
	}
	nodes := []bus.NodeInfo{node("self", 90, false), node("b", 50, false), node("c", 5, false), node("d", 0, true)}
	self := []string{"stun:self:1", "turn:self:1?transport=udp", "turn:self:1?transport=tcp"}
	b, c := nodes[1].TURN, nodes[2].TURN
	for name, tc := range map[string]struct {
		relay       bus.NodeID
		only, drain bool
		want        []string
	}{
		"no room":                         {want: slices.Concat(self, c)},
		"room's relay is here":            {relay: "self", want: slices.Concat(self, c)},
		"room's relay is elsewhere":       {relay: "b", want: slices.Concat(b, self, c)},
		"room's relay drains":             {relay: "d", want: slices.Concat(self, c)},
		"room's relay is gone":            {relay: "x", want: slices.Concat(self, c)},
		"sealed: they must meet":          {relay: "b", only: true, want: b},
		"sealed: they meet here":          {relay: "self", only: true, want: self},
		"sealed without a room":           {only: true, want: b},
		"draining: somebody else":         {drain: true, want: c},
		"draining, but the room is bound": {relay: "self", drain: true, only: true, want: self},
	} {
		t.Run(name, func(t *testing.T) {
			o := iceOffer{Host: "self", Port: 1, UDP: true, Self: "self", Nodes: nodes, Relay: tc.relay, Only: tc.only, Drain: tc.drain}
			if got := flat(o.servers()); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestSealedRelaysWithoutARoomMeetOnOneNode(t *testing.T) {
	started := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	node := func(name string, age time.Duration, draining bool) bus.NodeInfo {
		return bus.NodeInfo{ID: bus.NodeID(name), TURN: []string{"turn:" + name + ":1?transport=udp"}, Draining: draining, Started: started.Add(-age)}
	}
	nodes := []bus.NodeInfo{node("a", time.Hour, false), node("b", 2*time.Hour, false), node("c", 3*time.Hour, true)}
	for _, self := range []string{"a", "b", "c"} {
		o := iceOffer{Host: self, Port: 1, UDP: true, Self: bus.NodeID(self), Nodes: nodes, Only: true, Drain: self == "c"}
		for _, u := range flat(o.servers()) {
			if !strings.Contains(u, ":b:1") {
				t.Errorf("node %s offers %s, want the oldest that does not drain alone", self, u)
			}
		}
	}
}
