package signal

import (
	"strings"
	"testing"
)

func TestPeersInOneRoomExchangeSignalsAndBroadcasts(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(map[int]string{1: "one node", 3: "three nodes"}[nodes], func(t *testing.T) {
			c := newCluster(t, nodes, Limits{})
			ada := connect(t, c.nodes[0], "user=ada&name=Ada")
			bob := connect(t, c.nodes[nodes-1], "user=bob")
			if m := ada.join("tea"); len(m.Peers) != 1 || m.You != ada.peer || m.Peers[0] != (personJSON{ada.peer, "ada", "Ada"}) {
				t.Fatalf("%s", m.raw)
			}
			m := bob.join("tea")
			if len(m.Peers) != 2 || m.Relay == "" {
				t.Fatalf("%s", m.raw)
			}
			j := ada.expect("peer-joined")
			if j.peerID() != bob.peer || j.Version != m.Version || j.Room != "tea" {
				t.Fatalf("%s after %s", j.raw, m.raw)
			}
			data := `{"a": [1, 2.50,"\u00e9é"],  "b":null}`
			ada.send(`{"type":"signal","to":"` + bob.peer + `","data": ` + data + ` }`)
			s := bob.expect("signal")
			if string(s.Data) != data || s.from() != ada.peer {
				t.Fatalf("%s", s.raw)
			}
			bob.send(`{"type":"broadcast","room":"tea","data":"hello"}`)
			b := ada.expect("broadcast")
			if string(b.Data) != `"hello"` || b.from() != bob.peer || b.Room != "tea" {
				t.Fatalf("%s", b.raw)
			}
			bob.quiet() // not to the sender
			bob.send(`{"type":"leave","room":"tea","id":"7"}`)
			if l := bob.expect("left"); l.ID != "7" {
				t.Fatalf("%s", l.raw)
			}
			if l := ada.expect("peer-left"); l.peerID() != bob.peer || l.Reason != "left" || l.Version <= j.Version {
				t.Fatalf("%s", l.raw)
			}
			ada.send(`{"type":"signal","to":"` + bob.peer + `","data":1,"id":"8"}`)
			if u := ada.expect("undeliverable"); u.To != bob.peer || u.Reason != "not-in-room" || u.ID != "8" {
				t.Fatalf("%s", u.raw)
			}
		})
	}
}

func TestWelcomeNamesEverythingAClientNeeds(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	a := connect(t, c.nodes[0], "user=ada&ice=1")
	w := a.hello
	if w.Seq != 1 || w.User != "ada" || w.Name != "ada" || w.Resumed || len(w.ICE) != 2 || w.TTL != 3600 ||
		w.ExpiresAt != "2026-01-01T13:00:00Z" || w.Limits["frameBytes"] != 256<<10 || w.Limits["resumeSeconds"] != 30 ||
		len(w.peerID()) != 16 || w.Resume == "" {
		t.Fatalf("%s", w.raw)
	}
	a.join("tea")
	a.send(`{"type":"ice-servers","room":"tea","id":"x"}`)
	if m := a.expect("ice-servers"); m.ID != "x" || m.Room != "tea" || !strings.HasSuffix(m.ICE[1].URLs[0], "room=tea") {
		t.Fatalf("%s", m.raw)
	}
}
