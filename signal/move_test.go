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
	ctx  context.Context
	open func()
}

// withSlowDirectory adds a node with one.
func (c *cluster) withSlowDirectory() *slowDirectory {
	d := &slowDirectory{}
	d.ctx, d.open = context.WithCancel(c.t.Context())
	c.wrap = func(b *memory.Bus) Bus {
		d.Bus = b
		return d
	}
	c.add(Limits{})
	return d
}

func (d *slowDirectory) Join(ctx context.Context, room string, m bus.Member, limit int) (bus.Room, error) {
	<-d.ctx.Done()
	return d.Bus.Join(ctx, room, m, limit)
}

// forwards says whether the node sends on what comes for a peer.
func (n *node) forwards(peer string) bool {
	n.hub.mu.RLock()
	defer n.hub.mu.RUnlock()
	return n.hub.moved[peer] != nil
}

func TestABroadcastReachesWhoIsMovingAwayFromTheNodeItsSenderComesTo(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	slow := c.withSlowDirectory()
	ada := connect(t, c.nodes[1], "user=ada")
	bob := connect(t, c.nodes[0], "user=bob")
	ada.join("tea")
	bob.join("tea")
	ada.expect("peer-joined")

	bob = bob.resuming(c.nodes[2], "user=bob")
	eventually(t, "bob is on his way", func() bool { return c.nodes[0].forwards(bob.peer) })
	ada = ada.resume(c.nodes[0], "user=ada") // for the directory bob is still there
	ada.send(`{"type":"broadcast","room":"tea","data":1}`)
	ada.send(`{"type":"broadcast","room":"nowhere"}`)
	ada.expect("error") // the first one has been handled
	slow.open()
	bob.welcomed()
	if m := bob.expect("broadcast"); string(m.Data) != "1" {
		t.Fatalf("%s", m.raw)
	}
}

func TestAResumeThatAnotherOvertakesLosesNothing(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	slow := c.withSlowDirectory()
	bob := connect(t, c.nodes[0], "user=bob")
	ada := connect(t, c.nodes[1], "user=ada")
	bob.join("tea")
	ada.join("tea")
	bob.expect("peer-joined")

	first := bob.resuming(c.nodes[2], "user=bob")
	eventually(t, "bob is on his way", func() bool { return c.nodes[0].forwards(bob.peer) })
	ada.send(`{"type":"signal","to":"` + bob.peer + `","data":1}`)
	_ = first.ws.CloseNow() // the network has changed again
	second := first.resuming(c.nodes[1], "user=bob")
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
	slow.open()
	second.welcomed()
	if !second.hello.Resumed {
		t.Fatalf("%s", second.hello.raw)
	}
	if m := second.expect("signal"); string(m.Data) != "1" {
		t.Fatalf("%s", m.raw)
	}
	ada.quiet()
}
