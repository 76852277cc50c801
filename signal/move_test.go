package signal

import (
	"context"
	"testing"

	"callbox/bus"
	"callbox/bus/memory"
)

// slowDirectory is a bus whose joins wait until it is open.
type slowDirectory struct {
	Bus
	open context.Context
}

func (d *slowDirectory) Join(ctx context.Context, room string, m bus.Member, limit int) (bus.Room, error) {
	<-d.open.Done()
	return d.Bus.Join(ctx, room, m, limit)
}

// forwards says whether the node sends on what comes for a peer.
func (n *node) forwards(peer string) bool {
	n.hub.mu.RLock()
	defer n.hub.mu.RUnlock()
	return n.hub.moved[peer] != nil
}

// moving is three nodes and two members of a room: ada on the second node, and bob on his way from the first to the third,
// where he arrives after arrive.
func moving(t *testing.T) (c *cluster, ada, bob *client, arrive func()) {
	t.Helper()
	c = newCluster(t, 2, Limits{})
	open, arrive := context.WithCancel(t.Context())
	c.wrap = func(b *memory.Bus) Bus { return &slowDirectory{b, open} }
	c.add(Limits{})
	ada = connect(t, c.nodes[1], "user=ada")
	bob = connect(t, c.nodes[0], "user=bob")
	ada.join("tea")
	bob.join("tea")
	ada.expect("peer-joined")
	bob = bob.resuming(c.nodes[2], "user=bob")
	eventually(t, "bob is on his way", func() bool { return c.nodes[0].forwards(bob.peer) })
	return c, ada, bob, arrive
}

func TestABroadcastReachesWhoIsMovingAwayFromTheNodeItsSenderComesTo(t *testing.T) {
	c, ada, bob, arrive := moving(t)
	ada = ada.resume(c.nodes[0], "user=ada") // for the directory bob is still there
	ada.send(`{"type":"broadcast","room":"tea","data":1}`)
	ada.send(`{"type":"broadcast","room":"nowhere"}`)
	ada.expect("error") // the first one has been handled
	arrive()
	bob.welcomed()
	if m := bob.expect("broadcast"); string(m.Data) != "1" {
		t.Fatalf("%s", m.raw)
	}
}

func TestAResumeThatAnotherOvertakesLosesNothing(t *testing.T) {
	c, ada, bob, arrive := moving(t)
	ada.send(`{"type":"signal","to":"` + bob.peer + `","data":1}`)
	_ = bob.ws.CloseNow() // the network has changed again
	second := bob.resuming(c.nodes[1], "user=bob")
	eventually(t, "the second resume is under way", func() bool {
		h := c.nodes[1].hub
		h.mu.RLock()
		defer h.mu.RUnlock()
		s := h.arriving[bob.peer]
		if s == nil {
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.epoch > 0
	})
	arrive()
	second.welcomed()
	if !second.hello.Resumed {
		t.Fatalf("%s", second.hello.raw)
	}
	if m := second.expect("signal"); string(m.Data) != "1" {
		t.Fatalf("%s", m.raw)
	}
	ada.quiet()
}
