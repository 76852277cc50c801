package redis

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"callbox/bus"
	"callbox/bus/bustest"
)

func TestALossIsToldOnceUntilThingsAreClaimedAgain(t *testing.T) {
	m := miniredis.RunT(t)
	b, _ := openLedger(t, "redis://"+m.Addr(), "a")
	defer b.Close()
	ctx := context.Background()
	claim := bus.Claim{Peer: "p", Proof: []byte("proof")}
	g, err := b.Claim(ctx, claim)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(ctx, "r", bus.Member{Peer: "p", Epoch: g.Epoch}, 0); err != nil {
		t.Fatal(err)
	}
	entry, _ := b.keys.peer("p")
	for round := 1; round <= 2; round++ {
		m.Del(entry)
		m.Del(b.keys.room("r"))
		// The node samples by itself as well; whoever comes first tells it.
		for range 20 {
			b.sample()
		}
		if err := b.refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if n := b.counters.LinkDowns.Load(); n != uint64(round) {
			t.Fatalf("loss %d: %d losses told", round, n)
		}
		claim.Held = g.Epoch
		if g, err = b.Claim(ctx, claim); err != nil {
			t.Fatal(err)
		}
	}
}

// slowWriter is a log that is written to a busy disk.
type slowWriter struct{}

func (slowWriter) Write(p []byte) (int, error) {
	time.Sleep(3 * time.Millisecond)
	return len(p), nil
}

// Two find out that Redis has forgotten: the renewal of the lease, and the sample. A handler that heard "up" before "down"
// would wait for ever.
func TestALossThatTwoNoticeIsToldInOrder(t *testing.T) {
	m := miniredis.RunT(t)
	ctx := context.Background()
	b, err := Open(ctx, Config{URL: "redis://" + m.Addr(), Name: "a", Log: slog.New(slog.NewTextHandler(slowWriter{}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l := &ledger{}
	if err := b.Start(l); err != nil {
		t.Fatal(err)
	}
	claim := bus.Claim{Peer: "p", Proof: []byte("proof")}
	for round := range 200 {
		g, err := b.Claim(ctx, claim)
		if err != nil {
			t.Fatal(err)
		}
		claim.Held = g.Epoch
		m.FlushAll()
		var sampled sync.WaitGroup
		sampled.Go(b.sample)
		if err := b.refresh(ctx); err != nil {
			t.Fatal(err)
		}
		sampled.Wait()
		// What the sample alone has noticed is told with the next renewal.
		if err := b.refresh(ctx); err != nil {
			t.Fatal(err)
		}
		told := b.counters.LinkDowns.Load()
		bustest.Eventually(t, 10*time.Second, "the loss to be told", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return uint64(len(l.links)) == 2*told
		})
		l.mu.Lock()
		links := slices.Clone(l.links)
		l.mu.Unlock()
		for i, up := range links {
			if up != (i%2 == 1) {
				t.Fatalf("loss %d: change %d of the link was told as up = %v", round, i, up)
			}
		}
	}
}

func TestAPeerTakenOverElsewhereIsNotMissed(t *testing.T) {
	m := miniredis.RunT(t)
	ctx := context.Background()
	a, _ := openLedger(t, "redis://"+m.Addr(), "a")
	defer a.Close()
	b, _ := openLedger(t, "redis://"+m.Addr(), "b")
	defer b.Close()
	enter := func(at *Bus) uint64 {
		t.Helper()
		g, err := at.Claim(ctx, bus.Claim{Peer: "p", Proof: []byte("proof")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := at.Join(ctx, "r", bus.Member{Peer: "p", Epoch: g.Epoch}, 0); err != nil {
			t.Fatal(err)
		}
		return g.Epoch
	}
	first := enter(a)
	second := enter(b)
	if err := a.Release(ctx, "p", first); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Leave(ctx, "r", "p", second); err != nil {
		t.Fatal(err)
	}
	if err := b.Release(ctx, "p", second); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		a.sample()
		b.sample()
	}
	for _, n := range []*Bus{a, b} {
		if s := n.Stats(); s.Peers != 0 || s.LinkDowns != 0 {
			t.Errorf("%s holds %d peers and has told %d losses, want none", n.Self(), s.Peers, s.LinkDowns)
		}
	}
}

func TestALateGoodbyeDoesNotLetANewClaimExpire(t *testing.T) {
	m := miniredis.RunT(t)
	ctx := context.Background()
	b, _ := openLedger(t, "redis://"+m.Addr(), "a")
	defer b.Close()
	claim := bus.Claim{Peer: "p", Proof: []byte("proof")}
	var epochs [2]uint64
	for i := range epochs {
		g, err := b.Claim(ctx, claim)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Join(ctx, "r", bus.Member{Peer: "p", Epoch: g.Epoch}, 0); err != nil {
			t.Fatal(err)
		}
		epochs[i] = g.Epoch
	}
	if _, err := b.Leave(ctx, "r", "p", epochs[0]); err != nil {
		t.Fatal(err)
	}
	if err := b.Release(ctx, "p", epochs[0]); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.held["p"]
	if h == nil || len(b.keysOf("p", h)) != 2 {
		t.Errorf("held after the goodbye of an earlier session: %+v", h)
	}
}

// Another Redis may take over whose clock is behind.
func TestNumbersGrowThoughRedisIsEmptyAndItsClockGoesBack(t *testing.T) {
	m := miniredis.RunT(t)
	ctx := context.Background()
	now := time.Now()
	m.SetTime(now)
	a, _ := openLedger(t, "redis://"+m.Addr(), "a")
	defer a.Close()
	b, _ := openLedger(t, "redis://"+m.Addr(), "b")
	defer b.Close()
	enter := func(at *Bus) (uint64, uint64) {
		t.Helper()
		g, err := at.Claim(ctx, bus.Claim{Peer: "p", Proof: []byte("proof")})
		if err != nil {
			t.Fatal(err)
		}
		r, err := at.Join(ctx, "r", bus.Member{Peer: "p", Epoch: g.Epoch}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return g.Epoch, r.Version
	}
	epoch, version := enter(a)
	m.SetTime(now.Add(time.Second))
	if err := b.refresh(ctx); err != nil {
		t.Fatal(err)
	}
	m.FlushAll()
	m.SetTime(now.Add(-5 * time.Minute))
	if e, v := enter(b); e <= epoch || v <= version {
		t.Errorf("epoch %d after %d, version %d after %d", e, epoch, v, version)
	}
}

// Nodes whose clocks differ agree on when a record ends: Redis' clock says it.
func TestARecordEndsByRedisClock(t *testing.T) {
	m := miniredis.RunT(t)
	ctx := context.Background()
	m.SetTime(time.Now().Add(-time.Hour))
	b, _ := openLedger(t, "redis://"+m.Addr(), "a")
	defer b.Close()
	err := b.Update(ctx, "users", "short", func([]byte) ([]byte, time.Duration, error) { return []byte("v"), time.Minute, nil })
	if err != nil {
		t.Fatal(err)
	}
	if all, err := b.Load(ctx, "users"); err != nil || string(all["short"]) != "v" {
		t.Errorf("a record of a minute is over at once: %v, %v", all, err)
	}
}

func TestMalformedEntriesStopNobody(t *testing.T) {
	m := miniredis.RunT(t)
	ctx := context.Background()
	b, _ := openLedger(t, "redis://"+m.Addr(), "a")
	defer b.Close()
	m.HSet(b.keys.nodes(), "evil.1", "no deadline", "evil.2", "|")
	m.HSet(b.keys.room("r"), "mx", "no lines", "my", "\n\n", "mz", "node\nnumber\n", "later", "field of another release")
	if err := b.refresh(ctx); err != nil {
		t.Errorf("the lease is not renewed: %v", err)
	}
	r, err := b.Join(ctx, "r", bus.Member{Peer: "p", Epoch: 1}, 1)
	if err != nil || len(r.Members) != 1 {
		t.Errorf("a room with malformed members: %+v, %v", r, err)
	}
	if keys, _ := m.HKeys(b.keys.nodes()); len(keys) != 1 {
		t.Errorf("nodes listed: %q", keys)
	}
}

// A Redis that hung runs what it was asked meanwhile, and another node may have the peer by then.
func TestWhatNobodyWaitsForAnyMoreTakesNothing(t *testing.T) {
	m := miniredis.RunT(t)
	ctx := context.Background()
	b, _ := openLedger(t, "redis://"+m.Addr(), "a")
	defer b.Close()
	const past = "1"
	entry, waiting := b.keys.peer("p")
	claim := func([]bus.NodeID) []string { return []string{string(b.self), "proof", "0", "60000", "1", past} }
	if _, err := b.ask(ctx, b.scripts.claim, []string{entry, waiting}, claim); !errors.Is(err, bus.ErrNoLink) {
		t.Errorf("a late claim: %v, want ErrNoLink", err)
	}
	join := func([]bus.NodeID) []string {
		return []string{"join", "", "", "60000", string(b.self), "p", "1", "", "0", "1", past}
	}
	if _, err := b.ask(ctx, b.scripts.room, []string{b.keys.room("r")}, join); !errors.Is(err, bus.ErrNoLink) {
		t.Errorf("a late join: %v, want ErrNoLink", err)
	}
	if m.Exists(entry) || m.Exists(b.keys.room("r")) {
		t.Error("they have left something behind")
	}
}
