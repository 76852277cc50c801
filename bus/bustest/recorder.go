package bustest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"callbox/bus"
)

// message is one that arrived or was handed back.
type message struct {
	peer bus.NodeID // sender, or destination of a lost one
	data string
	why  error
}

// node is a bus with a handler that remembers everything.
type node struct {
	bus.Bus
	t  testing.TB
	id bus.NodeID

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every event
	messages  []message
	lost      []message
	changes   []string
	nodes     []bus.NodeInfo
	nodesSeen int
	links     []bool
	onMessage func(from bus.NodeID, data []byte) // called without the lock
}

// open opens and starts a node, and closes it at the end.
func open(t testing.TB, c Cluster, name string) *node {
	t.Helper()
	return openStore(t, c, name, nil)
}

func openStore(t testing.TB, c Cluster, name string, store *bus.Store) *node {
	t.Helper()
	n := prepare(t, c, name, store)
	n.start()
	return n
}

func prepare(t testing.TB, c Cluster, name string, store *bus.Store) *node {
	t.Helper()
	b := c.Open(t, name, store)
	n := &node{Bus: b, t: t, id: b.Self(), changed: make(chan struct{})}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close %s: %v", n.id, err)
		}
	})
	return n
}

func (n *node) start() {
	n.t.Helper()
	if err := n.Start(n); err != nil {
		n.t.Fatalf("start %s: %v", n.id, err)
	}
}

func (n *node) event(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Message implements bus.Handler.
func (n *node) Message(from bus.NodeID, data []byte) {
	n.mu.Lock()
	f := n.onMessage
	n.mu.Unlock()
	if f != nil {
		f(from, data)
	}
	n.event(func() { n.messages = append(n.messages, message{peer: from, data: string(data)}) })
}

// Lost implements bus.Handler.
func (n *node) Lost(to bus.NodeID, data []byte, why error) {
	n.event(func() { n.lost = append(n.lost, message{peer: to, data: string(data), why: why}) })
}

// Changed implements bus.Handler.
func (n *node) Changed(bucket, key string) {
	n.event(func() { n.changes = append(n.changes, bucket+"/"+key) })
}

// NodesChanged implements bus.Handler.
func (n *node) NodesChanged(infos []bus.NodeInfo) {
	n.event(func() { n.nodes = infos; n.nodesSeen++ })
}

// Link implements bus.Handler.
func (n *node) Link(up bool) {
	n.event(func() { n.links = append(n.links, up) })
}

// wait waits until ok, called with the lock after every event, is true.
func (n *node) wait(what string, ok func() bool) {
	n.t.Helper()
	n.waitFor(patience, what, ok)
}

func (n *node) waitFor(d time.Duration, what string, ok func() bool) {
	n.t.Helper()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for {
		n.mu.Lock()
		done, changed := ok(), n.changed
		n.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			n.mu.Lock()
			defer n.mu.Unlock()
			n.t.Fatalf("%s: waited %v in vain for %s; %d messages, %d lost, changes %v, links %v",
				n.id, d, what, len(n.messages), len(n.lost), n.changes, n.links)
		}
	}
}

// meet waits until each of the nodes lists all of them.
func meet(nodes ...*node) {
	for _, n := range nodes {
		n.t.Helper()
		Eventually(n.t, patience, fmt.Sprintf("%s to see %d nodes", n.id, len(nodes)), func() bool {
			for _, o := range nodes {
				if !n.sees(o.id) {
					return false
				}
			}
			return true
		})
	}
}

func (n *node) sees(id bus.NodeID) bool {
	return slices.ContainsFunc(n.Nodes(), func(i bus.NodeInfo) bool { return i.ID == id })
}

// Eventually waits for what tells nobody when it happens.
func Eventually(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v in vain for %s", d, what)
		}
	}
}

// send sends, and tries again while the other side is busy.
func (n *node) send(to bus.NodeID, data string) {
	n.t.Helper()
	Eventually(n.t, patience, "room in the buffer to "+string(to), func() bool {
		err := n.Send(to, []byte(data))
		if err != nil && !isBusy(err) {
			n.t.Fatalf("send to %s: %v", to, err)
		}
		return err == nil
	})
}

func (n *node) received(from bus.NodeID) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.receivedLocked(from)
}

func (n *node) receivedLocked(from bus.NodeID) []string {
	var data []string
	for _, m := range n.messages {
		if m.peer == from {
			data = append(data, m.data)
		}
	}
	return data
}

func (n *node) claim(peer, proof string, held uint64) bus.Grant {
	n.t.Helper()
	g, err := n.Claim(ctx(n.t), bus.Claim{Peer: peer, Proof: []byte(proof), Held: held})
	if err != nil {
		n.t.Fatalf("claim %s: %v", peer, err)
	}
	if g.Epoch == 0 {
		n.t.Fatalf("claim %s: epoch 0", peer)
	}
	return g
}

func (n *node) claimError(peer, proof string, held uint64) error {
	n.t.Helper()
	g, err := n.Claim(ctx(n.t), bus.Claim{Peer: peer, Proof: []byte(proof), Held: held})
	if err == nil {
		n.t.Fatalf("claim %s was granted with epoch %d", peer, g.Epoch)
	}
	return err
}

// ctx ends well before the test does.
func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return c
}
