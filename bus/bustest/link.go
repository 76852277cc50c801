package bustest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"callbox/bus"
)

func cutter(t *testing.T, c Cluster) Cutter {
	cut, ok := c.(Cutter)
	if !ok {
		t.Skip("this implementation cannot cut a node off")
	}
	return cut
}

// accounted checks that of count numbered messages every one was delivered or
// handed back, none both, and the delivered ones in order.
func accounted(t *testing.T, from, to *node, prefix string, count int) {
	t.Helper()
	fates := func() int {
		n := lostOf(from)
		for _, m := range to.received(from.id) {
			if len(m) > len(prefix) && m[:len(prefix)] == prefix {
				n++
			}
		}
		return n
	}
	Eventually(t, patience, fmt.Sprintf("the fate of %d messages", count), func() bool { return fates() >= count })
	fate := map[string]int{}
	last := -1
	for _, m := range to.received(from.id) {
		var i int
		if _, err := fmt.Sscanf(m, prefix+"%d", &i); err != nil {
			continue
		}
		if i <= last {
			t.Fatalf("%s%d arrived after %d", prefix, i, last)
		}
		last = i
		fate[m]++
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	for _, m := range from.lost {
		fate[m.data]++
	}
	for i := range count {
		if n := fate[fmt.Sprint(prefix, i)]; n != 1 {
			t.Fatalf("%s%d was delivered or handed back %d times, want once (%d lost)", prefix, i, n, len(from.lost))
		}
	}
}

func shortCut(t *testing.T, c Cluster) {
	cut := cutter(t, c)
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	a.send(b.id, "before")
	b.wait("a message", func() bool { return len(b.messages) == 1 })
	cut.Cut(t, b.Bus)
	for i := range 200 {
		a.send(b.id, fmt.Sprint("during", i))
	}
	cut.Heal(t, b.Bus)
	b.wait("the messages sent during the cut", func() bool { return len(b.receivedLocked(a.id)) >= 201 })
	accounted(t, a, b, "during", 200)
	if n := lostOf(a); n != 0 {
		t.Errorf("%d messages were lost in a cut far shorter than the lease", n)
	}
}

func longCut(t *testing.T, c Cluster) {
	cut := cutter(t, c)
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	g := b.claim("p", "proof", 0)
	q := b.claim("q", "proof", 0)
	b.join("r", "p", g.Epoch, 0)
	a.send(b.id, "before")
	b.wait("a message", func() bool { return len(b.messages) == 1 })

	cut.Cut(t, b.Bus)
	b.waitFor(Lease, "the cut to be told", func() bool { return slices.Equal(b.links, []bool{false}) })
	sent := 0
	Eventually(t, 2*Lease, "the node that is cut off to be gone", func() bool {
		err := a.Send(b.id, fmt.Append(nil, "during", sent))
		if err == nil {
			sent++
		} else if !isBusy(err) && !errors.Is(err, bus.ErrNodeGone) {
			t.Fatal(err)
		}
		return !a.sees(b.id)
	})
	a.miss("p", 0)
	wantPeers(t, a.room("r"))
	h := a.claim("p", "proof", 0)
	if _, err := b.Claim(ctx(t), bus.Claim{Peer: "z", Proof: []byte("z")}); err == nil {
		t.Errorf("a node that is cut off was granted a claim")
	}

	cut.Heal(t, b.Bus)
	b.wait("the way back to be told", func() bool { return slices.Equal(b.links, []bool{false, true}) })
	meet(a, b)
	accounted(t, a, b, "during", sent)
	if err := b.claimError("p", "proof", g.Epoch); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("re-claim of what another has taken: %v, want ErrFenced", err)
	}
	b.locate("p", a.id, h.Epoch)
	q2 := b.claim("q", "proof", q.Epoch)
	a.locate("q", b.id, q2.Epoch)
	for i := range 50 {
		a.send(b.id, fmt.Sprint("after", i))
		b.send(a.id, fmt.Sprint("back", i))
	}
	a.wait("messages after the cut", func() bool { return len(a.messages) >= 50 })
	b.wait("messages after the cut", func() bool { return slices.Contains(b.receivedLocked(a.id), "after49") })
	numbered(t, a.received(b.id), "back", 50)
}

func lossIsTold(t *testing.T, c Cluster) {
	f, ok := c.(Flusher)
	if !ok {
		t.Skip("this implementation cannot lose its state")
	}
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	g := a.claim("p", "proof", 0)
	f.Flush(t)
	for _, n := range []*node{a, b} {
		n.waitFor(5*time.Second, "the loss to be told", func() bool { return len(n.links) >= 2 && n.links[len(n.links)-1] })
	}
	meet(a, b)
	h := a.claim("p", "proof", g.Epoch)
	b.locate("p", a.id, h.Epoch)
	a.send(b.id, "after the loss")
	b.wait("a message", func() bool { return slices.Contains(b.receivedLocked(a.id), "after the loss") })
}
