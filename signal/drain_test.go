package signal

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

func TestDrainSendsClientsToOtherNodesWithNothingLost(t *testing.T) {
	c := newCluster(t, 3, unhurried)
	var open atomic.Pointer[[]*node]
	set := func(nodes ...*node) { open.Store(&nodes) }
	set(c.nodes...)
	s := newStorm(t, 6, func() *node {
		nodes := *open.Load()
		return nodes[rand.IntN(len(nodes))]
	})
	n := 0
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	rounds := func(count int) {
		for range count {
			n++
			s.round(n)
			<-pace.C
		}
	}
	rounds(10)
	// A rolling restart: every node is drained, stopped and replaced, under load.
	for i := range 3 {
		old := c.nodes[i]
		var rest []*node
		for _, o := range *open.Load() {
			if o != old {
				rest = append(rest, o)
			}
		}
		set(rest...)
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			done <- old.hub.Drain(ctx)
		}()
		for waiting := true; waiting; {
			select {
			case err := <-done:
				if err != nil {
					t.Error("drain:", err)
				}
				waiting = false
			default:
				rounds(1)
			}
		}
		old.stop()
		rounds(5)
		fresh := c.add(unhurried)
		set(append(rest, fresh)...)
	}
	rounds(10)
	s.settled(n)
	if resumes, lost := s.resumes(); resumes < 6 || lost > 0 {
		t.Errorf("%d resumes, %d sessions lost", resumes, lost)
	}
}

func TestDrainSaysGoawayAndClosesWhoStays(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	a := connect(t, c.nodes[0], "user=a")
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.nodes[0].hub.Drain(ctx) }()
	if m := a.expect("goaway"); m.Reason != "drain" || m.AfterMs > 100 || m.Seq != 0 {
		t.Fatalf("%s", m.raw)
	}
	if err := <-done; err == nil {
		t.Fatal("the session is still there")
	}
	if code := a.closed(); code != 4005 {
		t.Fatal(code)
	}
	// The session waits for the client to come elsewhere, also when the node has ended.
	c.nodes[0].stop()
	n := a.resume(c.nodes[1], "user=a")
	if !n.hello.Resumed || n.peer != a.peer {
		t.Fatalf("%s", n.hello.raw)
	}
	n.quiet()
}

func TestDrainWithNowhereToGoDoesNotWait(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	a := connect(t, c.nodes[0], "user=a")
	if err := c.nodes[0].hub.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if m := a.expect("goaway"); m.AfterMs != 0 {
		t.Fatalf("%s", m.raw)
	}
	c.nodes[0].stop()
	if code := a.closed(); code != 4005 {
		t.Fatal(code)
	}
}
