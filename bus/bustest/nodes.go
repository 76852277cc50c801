package bustest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"callbox/bus"
)

func (n *node) info(id bus.NodeID) (bus.NodeInfo, bool) {
	for _, i := range n.Nodes() {
		if i.ID == id {
			return i, true
		}
	}
	return bus.NodeInfo{}, false
}

func nodesSeeEachOther(t *testing.T, c Cluster) {
	a := open(t, c, "a")
	if !a.sees(a.id) {
		t.Fatal("a started node does not see itself")
	}
	b := open(t, c, "b")
	a.wait("a node to come", func() bool {
		return slices.ContainsFunc(a.nodes, func(i bus.NodeInfo) bool { return i.ID == b.id })
	})
	meet(a, b)
	info := bus.NodeInfo{TURN: []string{"turn:b.example:3478?transport=udp"}, Allocations: 7, Connections: 9}
	if err := b.Announce(ctx(t), info); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 3*time.Second, "the announcement to arrive", func() bool {
		i, _ := a.info(b.id)
		return i.Allocations == 7
	})
	i, _ := a.info(b.id)
	if i.Name != "b" || i.Connections != 9 || len(i.TURN) != 1 || i.TURN[0] != info.TURN[0] || i.Protocol != bus.Protocol || time.Since(i.Started) > time.Hour || i.Draining {
		t.Errorf("announced %+v, seen %+v", info, i)
	}
	if b.id.Name() != "b" {
		t.Errorf("the name in %s is %s", b.id, b.id.Name())
	}
	info.Draining = true
	if err := b.Announce(ctx(t), info); err != nil {
		t.Fatal(err)
	}
	a.wait("the draining to be told", func() bool {
		return slices.ContainsFunc(a.nodes, func(i bus.NodeInfo) bool { return i.ID == b.id && i.Draining })
	})
	infos := a.Nodes()
	if !slices.IsSortedFunc(infos, func(x, y bus.NodeInfo) int {
		if x.ID < y.ID {
			return -1
		}
		return 1
	}) {
		t.Errorf("not sorted: %v", infos)
	}
}

func (n *node) toldGone(id bus.NodeID) func() bool {
	return func() bool {
		return n.nodes != nil && !slices.ContainsFunc(n.nodes, func(i bus.NodeInfo) bool { return i.ID == id })
	}
}

func closedNodeGone(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	g := b.claim("p", "proof", 0)
	b.join("r", "p", g.Epoch, 0)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a.waitFor(2*time.Second, "the closed node to be gone", a.toldGone(b.id))
	a.miss("p", 0)
	wantPeers(t, a.room("r"))
	// The same name again is another node.
	b2 := open(t, c, "b")
	if b2.id == b.id {
		t.Errorf("a node id was used twice: %s", b.id)
	}
	meet(a, b2)
}

func killedNodeGone(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	a.wait("the other node", func() bool { return len(a.nodes) == 2 })
	c.Kill(t, b.Bus)
	a.waitFor(Lease, "the killed node to be gone", a.toldGone(b.id))
	if a.sees(b.id) {
		t.Errorf("told gone, but still listed")
	}
}

func manyNodes(t *testing.T, c Cluster) {
	var nodes []*node
	for i := range 8 {
		nodes = append(nodes, open(t, c, fmt.Sprint("n", i)))
	}
	meet(nodes...)
	for _, from := range nodes {
		for _, to := range nodes {
			for i := range 20 {
				from.send(to.id, fmt.Sprint("m", i))
			}
		}
	}
	for _, to := range nodes {
		to.wait("messages from all", func() bool { return len(to.messages) >= 8*20 })
		for _, from := range nodes {
			numbered(t, to.received(from.id), "m", 20)
		}
	}
}
