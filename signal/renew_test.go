package signal

import (
	"strings"
	"testing"
)

func TestServersThatChangeAreToldToEveryClient(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	hub := c.nodes[0].hub
	inRoom, alone := connect(t, c.nodes[0], "user=ada&ice=1"), connect(t, c.nodes[0], "user=bob&ice=1")
	token, without := connect(t, c.nodes[0], "user=eve&ice=1&room=tea"), connect(t, c.nodes[0], "user=dan")
	inRoom.join("tea")
	hub.RenewICE()
	if m := inRoom.expect("ice-servers"); m.ID != "" || m.Seq == 0 || m.Room != "tea" || len(m.ICE) != 2 || !strings.HasSuffix(m.ICE[1].URLs[0], "room=tea") || m.TTL != 3600 {
		t.Errorf("in a room: %s", m.raw)
	}
	if m := alone.expect("ice-servers"); m.Room != "" || len(m.ICE) != 2 {
		t.Errorf("in no room: %s", m.raw)
	}
	// Who has a token for a room asks when it has joined; who is offered none is told nothing.
	for name, other := range map[string]*client{"token": token, "without": without} {
		other.send(`{"type":"ping"}`)
		if m := other.next(); m.Type != "pong" {
			t.Errorf("%s: told %s", name, m.raw)
		}
	}
}

func TestServersThatChangeReachAClientThatComesBack(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	a := connect(t, c.nodes[0], "user=ada&ice=1")
	a.join("tea")
	a.drop()
	c.nodes[0].hub.RenewICE()
	b := a.resume(c.nodes[0], "user=ada&ice=1")
	if m := b.expect("ice-servers"); m.Room != "tea" || m.ID != "" {
		t.Errorf("got %s", m.raw)
	}
}
