package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"callbox/bus"
	"callbox/bus/bustest"
)

func pass(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

func TestKilledProcessIsGoneAtOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	url := "redis://" + s.address()
	a, la := openLedger(t, url, "a")
	c := startChild(t, url)
	st := startStream(a, c.self)
	bustest.Eventually(t, 10*time.Second, "messages", func() bool { return len(c.said("got ")) > 200 })
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.ended
	killed := time.Now()
	bustest.Eventually(t, 2*time.Second, "sends to fail", func() bool { return errors.Is(a.Send(c.self, []byte("m999999")), bus.ErrNodeGone) })
	t.Logf("sends fail %v after the kill", time.Since(killed))
	fates(t, st.end(), func() []string { return c.said("got ") }, la.returned)
	if took := time.Since(killed); took > bustest.Lease {
		t.Errorf("all messages were back %v after the kill, want within %v", took, bustest.Lease)
	}
}

func TestStoppedProcessDeliversNothingThatCameBack(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	url := "redis://" + s.address()
	a, la := openLedger(t, url, "a")
	c := startChild(t, url)
	st := startStream(a, c.self)
	bustest.Eventually(t, 10*time.Second, "messages", func() bool { return len(c.said("got ")) > 200 })
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, 10*time.Second, "the stopped node to count as gone", func() bool { return len(a.Nodes()) == 1 })
	pass(t, time.Second)
	delivered := c.said("got ")
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, 10*time.Second, "the node to be told", func() bool { return len(c.said("link true")) == 1 })
	if len(c.said("link false")) != 1 {
		t.Errorf("link events: %q", c.said("link "))
	}
	bustest.Eventually(t, 10*time.Second, "the node to be back", func() bool { return len(a.Nodes()) == 2 })
	before := len(c.said("got "))
	bustest.Eventually(t, 10*time.Second, "messages again", func() bool { return len(c.said("got ")) > before+200 })
	accepted := st.end()
	for _, m := range fates(t, accepted, func() []string { return c.said("got ") }, la.returned) {
		if !slices.Contains(delivered, m) {
			t.Errorf("%s was delivered after it had been handed back", m)
		}
	}
	t.Logf("%d accepted, %d lost", len(accepted), len(la.returned()))
}

// TestRedisTrouble disturbs Redis while messages flow both ways, and expects
// that each is delivered once and in order or comes back, and that all is well
// afterwards without a restart of anything.
func TestRedisTrouble(t *testing.T) {
	for _, c := range []struct {
		name    string
		disturb func(t *testing.T, s *server, x *cluster)
		loses   bool // messages may come back
		quiet   bool // the link need not be told
	}{
		{"Flushed", func(t *testing.T, s *server, x *cluster) { x.flushAll(t) }, false, false},
		{"StoppedShortly", func(t *testing.T, s *server, x *cluster) {
			s.signal(t, syscall.SIGSTOP)
			pass(t, 1500*time.Millisecond)
			s.signal(t, syscall.SIGCONT)
		}, false, true},
		{"StoppedForLong", func(t *testing.T, s *server, x *cluster) {
			s.signal(t, syscall.SIGSTOP)
			pass(t, 7*time.Second)
			s.signal(t, syscall.SIGCONT)
		}, false, false},
		{"RestartedAtOnce", func(t *testing.T, s *server, x *cluster) {
			s.kill()
			if err := s.start(); err != nil {
				t.Fatal(err)
			}
		}, false, false},
		{"AwayForLong", func(t *testing.T, s *server, x *cluster) {
			s.kill()
			pass(t, 6*time.Second)
			if err := s.start(); err != nil {
				t.Fatal(err)
			}
		}, false, false},
		{"SubscribersKilled", func(t *testing.T, s *server, x *cluster) {
			for range 3 {
				kill(t, x, "pubsub")
				pass(t, 500*time.Millisecond)
			}
		}, true, true},
		{"PublishersKilled", func(t *testing.T, s *server, x *cluster) {
			for range 3 {
				kill(t, x, "normal")
				pass(t, 500*time.Millisecond)
			}
		}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			url := "redis://" + s.address()
			x := newCluster(t, url, nil)
			a, la := openLedger(t, url, "a")
			b, lb := openLedger(t, url, "b")
			la.peer, lb.peer = lb, la
			ctx := context.Background()
			grant, err := a.Claim(ctx, bus.Claim{Peer: "p", Proof: []byte("proof")})
			if err != nil {
				t.Fatal(err)
			}
			one := func([]byte) ([]byte, time.Duration, error) { return []byte("value"), 0, nil }
			if err := a.Update(ctx, "users", "u", one); err != nil {
				t.Fatal(err)
			}
			there, back := startStream(a, b.Self()), startStream(b, a.Self())
			bustest.Eventually(t, 10*time.Second, "messages", func() bool { return len(la.gotten()) > 100 && len(lb.gotten()) > 100 })

			c.disturb(t, s, x)

			if !c.quiet {
				bustest.Eventually(t, 20*time.Second, "both nodes to be told", func() bool { return la.linkUpAgain() && lb.linkUpAgain() })
			}
			count := there.count()
			bustest.Eventually(t, 20*time.Second, "messages to flow again", func() bool {
				return there.count() > count+200 && strings.Compare(last(lb.gotten()), fmt.Sprintf("m%06d", count)) > 0
			})
			fates(t, there.end(), lb.gotten, la.returned)
			fates(t, back.end(), la.gotten, lb.returned)
			for _, l := range []*ledger{la, lb} {
				if len(l.late) > 0 {
					t.Errorf("delivered after they had been handed back: %v", l.late)
				}
			}
			lost := len(la.returned()) + len(lb.returned())
			t.Logf("%d delivered, %d handed back", len(la.gotten())+len(lb.gotten()), lost)
			if lost > 0 && !c.loses {
				t.Errorf("%d messages were handed back, want none", lost)
			}
			again, err := a.Claim(ctx, bus.Claim{Peer: "p", Proof: []byte("proof"), Held: grant.Epoch})
			if err != nil || again.Epoch <= grant.Epoch {
				t.Errorf("re-claim after epoch %d: %+v, %v", grant.Epoch, again, err)
			}
			bustest.Eventually(t, 10*time.Second, "the record in Redis", func() bool {
				n, err := x.control.Do(ctx, x.control.B().Hlen().Key("callbox:{records}:bucket:users").Build()).AsInt64()
				return err == nil && n == 1
			})
		})
	}
}

func TestCloseEndsWhileRedisHangs(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	b, _ := openLedger(t, "redis://"+s.address(), "b")
	s.signal(t, syscall.SIGSTOP)
	defer s.signal(t, syscall.SIGCONT)
	for range 100 {
		if err := b.Send(bus.NewNodeID("nobody"), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	closed := make(chan struct{})
	started := time.Now()
	go func() {
		defer close(closed)
		b.Close()
	}()
	select {
	case <-closed:
		t.Logf("closed within %v", time.Since(started))
	case <-time.After(15 * time.Second):
		t.Fatal("Close does not return while Redis hangs")
	}
}

func last(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[len(s)-1]
}
