package bustest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"callbox/bus"
)

// locate expects the peer at that node with that epoch.
func (n *node) locate(peer string, at bus.NodeID, epoch uint64) {
	n.t.Helper()
	id, e, err := n.Locate(ctx(n.t), peer, 0)
	if err != nil || id != at || e != epoch {
		n.t.Fatalf("%s: locate %s: %s epoch %d, %v; want %s epoch %d", n.id, peer, id, e, err, at, epoch)
	}
}

func (n *node) miss(peer string, wait time.Duration) {
	n.t.Helper()
	if id, _, err := n.Locate(ctx(n.t), peer, wait); !errors.Is(err, bus.ErrNotFound) {
		n.t.Fatalf("%s: locate %s: %s, %v; want ErrNotFound", n.id, peer, id, err)
	}
}

func (n *node) release(peer string, epoch uint64) {
	n.t.Helper()
	if err := n.Release(ctx(n.t), peer, epoch); err != nil {
		n.t.Fatalf("release %s: %v", peer, err)
	}
}

func claimLocateRelease(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	a.miss("p", 0)
	g := a.claim("p", "proof", 0)
	if g.Previous != "" || g.Parked != nil || len(g.Waiting) != 0 {
		t.Errorf("the first claim got %+v", g)
	}
	a.locate("p", a.id, g.Epoch)
	b.locate("p", a.id, g.Epoch)
	a.release("p", g.Epoch-1) // not the current epoch: nothing happens
	b.locate("p", a.id, g.Epoch)
	a.release("p", g.Epoch)
	b.miss("p", 0)
	h := b.claim("p", "another", 0)
	if h.Epoch <= g.Epoch {
		t.Errorf("epoch %d after %d", h.Epoch, g.Epoch)
	}
	a.release("p", g.Epoch) // late: the peer is another's by now
	a.locate("p", b.id, h.Epoch)
}

func sameProofTakesOver(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	g := a.claim("p", "proof", 0)
	h := b.claim("p", "proof", 0)
	if h.Previous != a.id || h.Epoch <= g.Epoch {
		t.Errorf("take-over got %+v after epoch %d at %s", h, g.Epoch, a.id)
	}
	a.locate("p", b.id, h.Epoch)
	a.release("p", g.Epoch)
	a.locate("p", b.id, h.Epoch)
}

func otherProofIsTaken(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	g := a.claim("p", "proof", 0)
	for _, n := range []*node{a, b} {
		if err := n.claimError("p", "guess", 0); !errors.Is(err, bus.ErrTaken) {
			t.Errorf("claim with another proof: %v, want ErrTaken", err)
		}
	}
	b.locate("p", a.id, g.Epoch)
}

func fencedReclaim(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	g := a.claim("p", "proof", 0)
	g2 := a.claim("p", "proof", g.Epoch) // nobody came in between
	if g2.Epoch <= g.Epoch {
		t.Errorf("re-claim got epoch %d after %d", g2.Epoch, g.Epoch)
	}
	h := b.claim("p", "proof", 0)
	if err := a.claimError("p", "proof", g2.Epoch); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("re-claim of what has moved on: %v, want ErrFenced", err)
	}
	a.locate("p", b.id, h.Epoch)
	if g := a.claim("q", "proof", h.Epoch+1000); g.Epoch <= h.Epoch+1000 {
		t.Errorf("re-claim of epoch %d, unknown here, got %d", h.Epoch+1000, g.Epoch)
	}
}

func oneClaimWins(t *testing.T, c Cluster) {
	nodes := []*node{open(t, c, "a"), open(t, c, "b"), open(t, c, "d")}
	meet(nodes...)
	for round := range 20 {
		peer := fmt.Sprint("p", round)
		var wg sync.WaitGroup
		var mu sync.Mutex
		wins := 0
		for i := range 9 {
			wg.Go(func() {
				_, err := nodes[i%3].Claim(ctx(t), bus.Claim{Peer: peer, Proof: fmt.Append(nil, i)})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					wins++
				case !errors.Is(err, bus.ErrTaken):
					t.Errorf("claim: %v", err)
				}
			})
		}
		wg.Wait()
		if wins != 1 {
			t.Fatalf("%d of 9 claims of %s with different proofs were granted", wins, peer)
		}
	}
}

func epochsGrow(t *testing.T, c Cluster) {
	nodes := []*node{open(t, c, "a"), open(t, c, "b")}
	meet(nodes...)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bus.NodeID{}
	var last uint64
	for i := range 40 {
		wg.Go(func() {
			n := nodes[i%2]
			g, err := n.Claim(ctx(t), bus.Claim{Peer: "p", Proof: []byte("proof")})
			if err != nil {
				t.Errorf("claim: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if _, again := seen[g.Epoch]; again {
				t.Errorf("epoch %d was granted twice", g.Epoch)
			}
			seen[g.Epoch] = n.id
			last = max(last, g.Epoch)
		})
	}
	wg.Wait()
	nodes[0].locate("p", seen[last], last)
}

func epochsGrowAfterLoss(t *testing.T, c Cluster) {
	f, ok := c.(Flusher)
	if !ok {
		t.Skip("this implementation cannot lose its state")
	}
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	g := a.claim("p", "proof", 0)
	r := a.join("room", "p", g.Epoch, 0)
	f.Flush(t)
	Eventually(t, patience, "the claim after the loss", func() bool {
		h, err := a.Claim(ctx(t), bus.Claim{Peer: "p", Proof: []byte("proof"), Held: g.Epoch})
		if err == nil && h.Epoch <= g.Epoch {
			t.Fatalf("epoch %d after %d", h.Epoch, g.Epoch)
		}
		return err == nil
	})
	if r2 := a.join("room", "q", 1, 0); r2.Version <= r.Version {
		t.Errorf("room version %d after %d", r2.Version, r.Version)
	}
	if h := b.claim("q", "proof", 0); h.Epoch <= g.Epoch {
		t.Errorf("epoch %d after %d", h.Epoch, g.Epoch)
	}
}

func killedNodesPeers(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	g := b.claim("p", "proof", 0)
	a.locate("p", b.id, g.Epoch)
	c.Kill(t, b.Bus)
	Eventually(t, Lease, "the dead node's peer to be gone", func() bool {
		_, _, err := a.Locate(ctx(t), "p", 0)
		return errors.Is(err, bus.ErrNotFound)
	})
	if h := a.claim("p", "another", 0); h.Epoch <= g.Epoch {
		t.Errorf("epoch %d after %d", h.Epoch, g.Epoch)
	}
}

func waitingIsNamed(t *testing.T, c Cluster) {
	a, b, d := open(t, c, "a"), open(t, c, "b"), open(t, c, "d")
	meet(a, b, d)
	b.miss("p", 10*time.Second)
	b.miss("p", 10*time.Second)
	a.miss("p", 10*time.Second)
	d.miss("p", 0)
	g := a.claim("p", "proof", 0)
	if len(g.Waiting) != 1 || g.Waiting[0] != b.id {
		t.Errorf("waiting: %v, want only %s", g.Waiting, b.id)
	}
	if h := d.claim("p", "proof", 0); len(h.Waiting) != 0 {
		t.Errorf("waiting nodes were named twice: %v", h.Waiting)
	}
}

func waitingEnds(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	b.miss("p", 50*time.Millisecond)
	after := time.NewTimer(200 * time.Millisecond)
	defer after.Stop()
	<-after.C
	if g := a.claim("p", "proof", 0); len(g.Waiting) != 0 {
		t.Errorf("waiting after its time: %v", g.Waiting)
	}
}

func waitingIsAtomic(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	for i := range 100 {
		peer := fmt.Sprint("p", i)
		var wg sync.WaitGroup
		var found bool
		wg.Go(func() {
			_, _, err := b.Locate(ctx(t), peer, 10*time.Second)
			if err != nil && !errors.Is(err, bus.ErrNotFound) {
				t.Errorf("locate: %v", err)
			}
			found = err == nil
		})
		g := a.claim(peer, "proof", 0)
		wg.Wait()
		if named := len(g.Waiting) == 1; found == named {
			t.Fatalf("%s: found %v, waiting %v: want one of the two", peer, found, g.Waiting)
		}
	}
}

func (n *node) park(peer string, epoch uint64, state string, ttl time.Duration) {
	n.t.Helper()
	if err := n.Park(ctx(n.t), peer, epoch, []byte(state), ttl); err != nil {
		n.t.Fatalf("park %s: %v", peer, err)
	}
}

func parkAndClaim(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	g := a.claim("p", "proof", 0)
	if err := a.Park(ctx(t), "p", g.Epoch-1, []byte("old"), time.Minute); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("park with an old epoch: %v, want ErrFenced", err)
	}
	if err := b.Park(ctx(t), "p", g.Epoch, []byte("not mine"), time.Minute); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("park of another node's peer: %v, want ErrFenced", err)
	}
	state := "state \x00 \xff of p"
	a.park("p", g.Epoch, state, time.Minute)
	b.miss("p", time.Minute)
	if err := b.claimError("p", "guess", 0); !errors.Is(err, bus.ErrTaken) {
		t.Errorf("claim of a parked peer with another proof: %v, want ErrTaken", err)
	}
	h := b.claim("p", "proof", 0)
	if string(h.Parked) != state || h.Previous != a.id || h.Epoch <= g.Epoch {
		t.Errorf("claim of the parked peer got %+v", h)
	}
	if h := b.claim("p", "proof", h.Epoch); h.Parked != nil {
		t.Errorf("the parked state was handed out twice")
	}
	if err := b.Park(ctx(t), "p", h.Epoch, make([]byte, bus.MaxParked+1), time.Minute); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("park of too much: %v, want ErrTooLarge", err)
	}
}

func parkOutlivesNode(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	g := a.claim("p", "proof", 0)
	a.park("p", g.Epoch, "state", time.Minute)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, patience, "the node to be gone", func() bool { return !b.sees(a.id) })
	if err := b.claimError("p", "guess", 0); !errors.Is(err, bus.ErrTaken) {
		t.Errorf("claim with another proof: %v, want ErrTaken", err)
	}
	if h := b.claim("p", "proof", 0); string(h.Parked) != "state" {
		t.Errorf("claim got %+v, want the parked state", h)
	}
}

func parkEnds(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	g := a.claim("p", "proof", 0)
	a.park("p", g.Epoch, "state", 50*time.Millisecond)
	Eventually(t, patience, "the parked state to end", func() bool {
		h, err := b.Claim(ctx(t), bus.Claim{Peer: "p", Proof: []byte("another")})
		if err == nil && h.Parked != nil {
			t.Fatal("another proof got the parked state")
		}
		return err == nil
	})
}

func namesBounded(t *testing.T, c Cluster) {
	a := open(t, c, "a")
	for _, name := range []string{"", string(make([]byte, bus.MaxName+1))} {
		if err := a.claimError(name, "proof", 0); !errors.Is(err, bus.ErrTooLarge) {
			t.Errorf("claim of a name of %d bytes: %v, want ErrTooLarge", len(name), err)
		}
		if _, err := a.Join(ctx(t), name, bus.Member{Peer: "p"}, 0); !errors.Is(err, bus.ErrTooLarge) {
			t.Errorf("join of a room name of %d bytes: %v, want ErrTooLarge", len(name), err)
		}
		if _, err := a.Join(ctx(t), "r", bus.Member{Peer: name}, 0); !errors.Is(err, bus.ErrTooLarge) {
			t.Errorf("join of a peer id of %d bytes: %v, want ErrTooLarge", len(name), err)
		}
	}
}

func oddNames(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	for _, name := range []string{"{}", "}{", "{", "a{b}c", "%7B", "sp ace", "\x00\xff\n", "ümläut", "a:b|c,d", "*"} {
		b.miss(name, time.Second)
		g := a.claim(name, name, 0)
		if len(g.Waiting) != 1 {
			t.Errorf("%q: waiting %v", name, g.Waiting)
		}
		b.locate(name, a.id, g.Epoch)
		r, err := b.Join(ctx(t), name, bus.Member{Peer: name, Epoch: 7, Info: []byte(name)}, 1)
		if err != nil || len(r.Members) != 1 || r.Members[0].Peer != name || string(r.Members[0].Info) != name {
			t.Errorf("%q: join got %+v, %v", name, r, err)
		}
	}
}
