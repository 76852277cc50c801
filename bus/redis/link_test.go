package redis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"callbox/bus"
)

// bare is a node without Redis, for its links to be driven by hand.
func bare(name string, h bus.Handler) (*Bus, *subscription) {
	b := &Bus{
		self: bus.NewNodeID(name), handler: h, state: started,
		kick: make(chan struct{}, 1), view: map[bus.NodeID]*seen{}, peers: map[bus.NodeID]*link{},
	}
	b.queue.Init()
	b.up.Store(true)
	now := time.Now()
	b.lease.Store(&now)
	b.term.Store(1)
	b.current = &subscription{b: b}
	return b, b.current
}

// between links two bare nodes; no goroutine serves the links.
func between(a, b *Bus) (ab, ba *link) {
	ab, ba = newLink(a, b.self), newLink(b, a.self)
	ab.term, ba.term = 1, 1
	a.peers[b.self], b.peers[a.self] = ab, ba
	return ab, ba
}

// TestLossyRedisLosesNothing drives two links over a Redis that drops and
// repeats publications and forgets to answer, by many random courses.
func TestLossyRedisLosesNothing(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) { lossyCourse(t, seed) })
	}
}

func lossyCourse(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	la, lb := &ledger{}, &ledger{}
	a, subA := bare("a", la)
	b, subB := bare("b", lb)
	ab, ba := between(a, b)
	sent := 0
	pass := func(d time.Duration) {
		<-time.After(d)
		now := time.Now()
		a.lease.Store(&now)
		b.lease.Store(&now)
	}
	step := func(l *link, to *Bus, sub *subscription, lossy bool) {
		f, term, _, _ := l.compose(time.Now())
		if f == nil {
			return
		}
		data := string(f.append(nil))
		fate := 0
		if lossy {
			fate = r.IntN(6)
		}
		switch fate {
		case 0: // all is well
			to.receive(sub, data)
			l.published(f, term, 1, nil)
		case 1: // counted as received, then lost in a buffer
			l.published(f, term, 1, nil)
		case 2: // no answer, and not published
			l.published(f, term, 0, errors.New("broken connection"))
		case 3: // no answer, but published
			to.receive(sub, data)
			l.published(f, term, 0, errors.New("broken connection"))
		case 4: // published twice
			to.receive(sub, data)
			to.receive(sub, data)
			l.published(f, term, 1, nil)
		case 5: // nobody subscribed for a moment, just after trouble
			l.b.sawTrouble()
			l.published(f, term, 0, nil)
		}
	}
	for range 200 {
		for range r.IntN(4) {
			if err := ab.put(fmt.Appendf(nil, "m%06d", sent)); err != nil {
				t.Fatal(err)
			}
			if err := ba.put(fmt.Appendf(nil, "m%06d", sent)); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		step(ab, b, subB, true)
		step(ba, a, subA, true)
		pass(time.Duration(r.IntN(400)) * time.Millisecond)
	}
	for range 200 { // calm again
		step(ab, b, subB, false)
		step(ba, a, subA, false)
		pass(300 * time.Millisecond)
	}
	for _, l := range []*ledger{la, lb} {
		if len(l.got) != sent {
			t.Fatalf("course %d: %d of %d arrived", seed, len(l.got), sent)
		}
		for i, m := range l.got {
			if m != fmt.Sprintf("m%06d", i) {
				t.Fatalf("course %d: number %d is %s", seed, i, m)
			}
		}
	}
	for _, l := range []*link{ab, ba} {
		if len(l.queue) != 0 || l.bytes != 0 || l.window != 0 || l.base != l.next || l.doubt != l.base {
			t.Fatalf("course %d: left over: %d queued, %d bytes, window %d, base %d next %d doubt %d", seed, len(l.queue), l.bytes, l.window, l.base, l.next, l.doubt)
		}
	}
}

func TestMessagesForRedisThatStaysAwayComeBack(t *testing.T) {
	a, _ := bare("a", &ledger{})
	b, _ := bare("b", &ledger{})
	ab, _ := between(a, b)
	put := func(m string) {
		t.Helper()
		if err := ab.put([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	put("in doubt")
	f, term, _, _ := ab.compose(time.Now())
	ab.published(f, term, 0, errors.New("broken connection"))
	put("never published")
	a.up.Store(false)
	lost := func() (list []string) {
		events, _, _ := a.queue.Take()
		for _, e := range events {
			if !errors.Is(e.Err, bus.ErrNoLink) {
				t.Errorf("%s came back because %v, want ErrNoLink", e.Data, e.Err)
			}
			list = append(list, string(e.Data))
		}
		return list
	}
	ab.compose(time.Now().Add(staleAfter - time.Second))
	if got := lost(); len(got) != 0 {
		t.Errorf("came back too early: %q", got)
	}
	ab.compose(time.Now().Add(staleAfter + time.Second))
	if got := lost(); len(got) != 1 || got[0] != "never published" {
		t.Errorf("came back: %q; want only what surely was not received", got)
	}
}

func TestLinkIsBounded(t *testing.T) {
	for _, size := range []int{0, 100, bus.MaxMessage} {
		a, _ := bare("a", &ledger{})
		b, _ := bare("b", &ledger{})
		ab, _ := between(a, b)
		n := 0
		for ; ab.put(make([]byte, size)) == nil; n++ {
			if n > maxQueued {
				t.Fatalf("took %d messages of %d bytes", n, size)
			}
		}
		if err := ab.put(make([]byte, size)); !errors.Is(err, bus.ErrBusy) {
			t.Errorf("a full link says %v, want ErrBusy", err)
		}
		if ab.bytes > maxQueuedBytes {
			t.Errorf("%d bytes are queued", ab.bytes)
		}
		// What is under way is bounded too.
		for range 100 {
			if f, term, _, _ := ab.compose(time.Now()); f != nil {
				ab.published(f, term, 1, nil)
			}
		}
		if ab.window > windowBytes+max(frameBytes, bus.MaxMessage) {
			t.Errorf("%d bytes are under way", ab.window)
		}
	}
}

func TestFrameOfAnEarlierSubscriptionIsNotDelivered(t *testing.T) {
	lb := &ledger{}
	a, _ := bare("a", &ledger{})
	b, old := bare("b", lb)
	ab, _ := between(a, b)
	if err := ab.put([]byte("old")); err != nil {
		t.Fatal(err)
	}
	f, _, _, _ := ab.compose(time.Now())
	data := string(f.append(nil))
	b.current = &subscription{b: b}
	b.receive(old, data)
	if len(lb.got) != 0 {
		t.Errorf("delivered from a subscription that has ended: %q", lb.got)
	}
	long := time.Now().Add(-leaseTime)
	b.lease.Store(&long)
	b.receive(b.current, data)
	if len(lb.got) != 0 {
		t.Errorf("delivered without a lease: %q", lb.got)
	}
	now := time.Now()
	b.lease.Store(&now)
	b.receive(b.current, data)
	if len(lb.got) != 1 {
		t.Errorf("not delivered with a lease: %q", lb.got)
	}
}
