package signal

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestDrainLetsCallsThatEndWithTheirConnectionLast(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Limits{})
	old := c.nodes[0]
	peer, doc := peerJS(t, old, "a", "1"), dialY(t, old, "")
	doc.sync()
	a, b := ayameIn(t, old, "tea", "", false), ayameIn(t, old, "tea", "", true)
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- old.hub.Drain(ctx) }()
	for _, x := range []*adapted{peer, doc} {
		if code := x.closed(); code != 4005 {
			t.Errorf("closed with %d", code)
		}
	}
	b.send(`{"type":"candidate","ice":1}`)
	for m := a.next(); m != `{"type":"candidate","ice":1}`; m = a.next() {
		if m != `{"type":"ping"}` {
			t.Fatalf("said %s", m)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("the drain ended with %v", err)
	}
	for _, x := range []*adapted{a, b} {
		for range x.in {
		}
	}
	// They are served elsewhere under their names.
	peerJS(t, c.nodes[1], "a", "1")
	ayameIn(t, c.nodes[1], "tea", "", false)
}

func TestPeerJSPeersMeetAgainAfterACut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Limits{BusTimeout: time.Second})
	a, b, near := peerJS(t, c.nodes[0], "a", "1"), peerJS(t, c.nodes[1], "b", "2"), peerJS(t, c.nodes[0], "near", "3")
	b.send(`{"type":"OFFER","dst":"a","payload":0}`)
	a.expect(`{"type":"OFFER","src":"b","dst":"a","payload":0}`)
	c.net.Cut(c.nodes[0].bus.Self())
	near.send(`{"type":"OFFER","dst":"a","payload":1}`)
	a.expect(`{"type":"OFFER","src":"near","dst":"a","payload":1}`)
	eventually(t, "the node counts as gone", func() bool { return len(c.nodes[1].bus.Nodes()) == 1 })
	c.net.Heal(c.nodes[0].bus.Self())
	eventually(t, "messages pass again", func() bool {
		b.send(`{"type":"OFFER","dst":"a","payload":2}`)
		select {
		case m := <-a.in:
			return m == `{"type":"OFFER","src":"b","dst":"a","payload":2}`
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
}

// A message costs its copy in the receiver's queue and the name it is sent to.
func TestForwardingAPeerJSMessageAllocatesLittle(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	h := c.nodes[0].hub
	from := &session{hub: h, proto: peerjs{}, peer: peerjsSpace + "/a"}
	to := &session{hub: h, proto: peerjs{}, peer: peerjsSpace + "/b"}
	h.mu.Lock()
	h.sessions[to.peer] = to
	h.mu.Unlock()
	sender := &conn{hub: h, proto: peerjs{}, meter: meter{}}
	sender.s.Store(from)
	sender.late = to
	frame := []byte(`{"type":"OFFER","dst":"b","payload":{"sdp":"` + strings.Repeat("a=candidate ", 120) + `"}}`)
	allocs := testing.AllocsPerRun(1000, func() {
		peerjs{}.message(sender, pass, 1, frame)
		to.mu.Lock()
		to.dropLocked(to.base + uint64(len(to.queue)))
		to.mu.Unlock()
	})
	if allocs > 3 && !raceEnabled {
		t.Errorf("%v allocations a message", allocs)
	}
	h.mu.Lock()
	delete(h.sessions, to.peer)
	h.mu.Unlock()
}

// BenchmarkPeerJSMessage is a message's way from its frame to the receiver's queue.
func BenchmarkPeerJSMessage(b *testing.B) {
	frame := []byte(`{"type":"OFFER","dst":"b","payload":{"sdp":"` + strings.Repeat("a=candidate ", 120) + `"}}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	for range b.N {
		if m, ok := decodePeerJS(frame); !ok || m.payload == nil {
			b.Fatal("not decoded")
		}
	}
}
