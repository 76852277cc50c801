package bustest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/bus"
)

func isBusy(err error) bool { return errors.Is(err, bus.ErrBusy) }

// numbered checks that the messages are prefix0, prefix1, ... count of them.
func numbered(t testing.TB, got []string, prefix string, count int) {
	t.Helper()
	if len(got) != count {
		t.Fatalf("%d messages arrived, want %d", len(got), count)
	}
	for i, m := range got {
		if want := fmt.Sprint(prefix, i); m != want {
			t.Fatalf("message %d is %q, want %q", i, m, want)
		}
	}
}

func messagesInOrder(t *testing.T, c Cluster) {
	const count = 2000
	a, b, d := open(t, c, "a"), open(t, c, "b"), open(t, c, "d")
	meet(a, b, d)
	var wg sync.WaitGroup
	for _, from := range []*node{a, b, d} {
		wg.Go(func() {
			for i := range count {
				for _, to := range []*node{a, b} {
					for {
						err := from.Send(to.id, fmt.Append(nil, from.id, " ", i))
						if err == nil {
							break
						}
						if !isBusy(err) {
							t.Errorf("send: %v", err)
							return
						}
					}
				}
			}
		})
	}
	wg.Wait()
	for _, to := range []*node{a, b} {
		to.wait("all messages", func() bool { return len(to.messages) >= 3*count })
		for _, from := range []*node{a, b, d} {
			numbered(t, to.received(from.id), string(from.id)+" ", count)
		}
	}
}

func messageToSelf(t *testing.T, c Cluster) {
	a := open(t, c, "a")
	for i := range 100 {
		a.send(a.id, fmt.Sprint("self", i))
	}
	a.wait("its own messages", func() bool { return len(a.messages) >= 100 })
	numbered(t, a.received(a.id), "self", 100)
}

func handlerMaySend(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	b.mu.Lock()
	b.onMessage = func(from bus.NodeID, data []byte) {
		if err := b.Send(from, data); err != nil {
			t.Errorf("send within the handler: %v", err)
		}
	}
	b.mu.Unlock()
	for i := range 500 {
		a.send(b.id, fmt.Sprint("echo", i))
	}
	a.wait("the echoes", func() bool { return len(a.messages) >= 500 })
	numbered(t, a.received(b.id), "echo", 500)
}

// allBack sends count messages to a node that is gone and expects every one
// to be refused or to come back, within the time.
func (n *node) allBack(to bus.NodeID, count int, within time.Duration) {
	n.t.Helper()
	n.mu.Lock()
	before := len(n.lost)
	n.mu.Unlock()
	accepted := 0
	for i := range count {
		err := n.Send(to, fmt.Append(nil, "gone", i))
		switch {
		case err == nil:
			accepted++
		case !errors.Is(err, bus.ErrNodeGone):
			n.t.Fatalf("send to a node that is gone: %v, want ErrNodeGone", err)
		}
	}
	n.waitFor(within, "every message to come back", func() bool { return len(n.lost) >= before+accepted })
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := map[string]bool{}
	for _, m := range n.lost[before:] {
		if m.peer != to || !errors.Is(m.why, bus.ErrNodeGone) || seen[m.data] {
			n.t.Fatalf("lost %q to %s, because %v (again: %v); want each once, to %s, ErrNodeGone", m.data, m.peer, m.why, seen[m.data], to)
		}
		seen[m.data] = true
	}
}

func sendToKilled(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	a.send(b.id, "hello")
	b.wait("hello", func() bool { return len(b.messages) == 1 })
	c.Kill(t, b.Bus)
	// At once: long before a lease could have ended.
	a.allBack(b.id, 20, 2*time.Second)
}

func sendToClosed(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	a.send(b.id, "hello")
	b.wait("hello", func() bool { return len(b.messages) == 1 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a.allBack(b.id, 20, 2*time.Second)
	if err := b.Send(a.id, nil); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("send on a closed bus: %v, want ErrClosed", err)
	}
}

func sendToUnknown(t *testing.T, c Cluster) {
	a := open(t, c, "a")
	a.allBack(bus.NewNodeID("b"), 3, 2*time.Second)
}

func messageTooLarge(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	if err := a.Send(b.id, make([]byte, bus.MaxMessage+1)); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("send of too much: %v, want ErrTooLarge", err)
	}
	a.send(b.id, "next")
	b.wait("the next message", func() bool { return len(b.messages) == 1 })
}

func largeMessages(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	for i := range 8 {
		a.send(b.id, strings.Repeat(string(rune('a'+i)), bus.MaxMessage-i))
	}
	a.send(b.id, "")
	b.wait("nine messages", func() bool { return len(b.messages) == 9 })
	for i, m := range b.received(a.id)[:8] {
		if len(m) != bus.MaxMessage-i || strings.Trim(m, string(rune('a'+i))) != "" {
			t.Errorf("message %d of %d bytes arrived changed", i, len(m))
		}
	}
}

func busyBound(t *testing.T, c Cluster) {
	a, b, d := open(t, c, "a"), open(t, c, "b"), open(t, c, "d")
	meet(a, b, d)
	release := make(chan struct{})
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	b.mu.Lock()
	b.onMessage = func(bus.NodeID, []byte) { <-release }
	b.mu.Unlock()

	body := bytes.Repeat([]byte("x"), 1000)
	sent, busy := 0, false
	started := time.Now()
	for sent < 1<<20 && !busy {
		err := a.Send(b.id, fmt.Append(nil, sent, " ", string(body)))
		switch {
		case err == nil:
			sent++
		case isBusy(err):
			busy = true
		default:
			t.Fatal(err)
		}
	}
	if !busy {
		t.Fatalf("a receiver that reads nothing was sent %d messages, never busy", sent)
	}
	if took := time.Since(started); took > patience {
		t.Fatalf("%d sends to a stuck receiver took %v", sent, took)
	}
	// Others are not held up.
	a.send(d.id, "past the jam")
	d.wait("a message past the jam", func() bool { return len(d.messages) == 1 })
	once.Do(func() { close(release) })
	b.wait("what was accepted", func() bool { return len(b.messages)+lostOf(a) >= sent })
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.lost) != 0 {
		t.Fatalf("%d messages to a slow node came back (%v)", len(a.lost), a.lost[0].why)
	}
	for i, m := range b.received(a.id) {
		if !strings.HasPrefix(m, fmt.Sprint(i, " ")) {
			t.Fatalf("message %d begins %.8q", i, m)
		}
	}
}

func lostOf(n *node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.lost)
}

func nothingAfterClose(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := a.Send(b.id, fmt.Append(nil, i)); errors.Is(err, bus.ErrNodeGone) {
				return
			}
		}
	})
	b.wait("some messages", func() bool { return len(b.messages) > 10 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	count := len(b.messages) + b.nodesSeen
	b.mu.Unlock()
	Eventually(t, patience, "the other node to notice", func() bool { return !a.sees(b.id) })
	close(stop)
	wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := len(b.messages) + b.nodesSeen; now != count {
		t.Errorf("%d handler calls after Close had returned", now-count)
	}
}

func statsCount(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	for i := range 10 {
		a.send(b.id, fmt.Sprint(i))
	}
	b.wait("ten messages", func() bool { return len(b.messages) == 10 })
	a.claim("stats", "p", 0)
	if s := a.Stats(); s.Published != 10 || !s.LinkUp || s.Nodes != 2 || s.Peers != 1 {
		t.Errorf("sender's stats %+v; want 10 published, link up, 2 nodes, 1 peer", s)
	}
	if s := b.Stats(); s.Received != 10 {
		t.Errorf("receiver's stats %+v; want 10 received", s)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a.allBack(b.id, 5, 2*time.Second)
	s := a.Stats()
	if got := s.Lost["node-gone"] + s.Refused["node-gone"]; got != 5 {
		t.Errorf("%d counted as lost or refused because the node is gone, want 5: %+v", got, s)
	}
}
