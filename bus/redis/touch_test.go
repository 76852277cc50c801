package redis

import (
	"context"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"callbox/bus"
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
		if n := b.counters.LinkDowns.Load(); n != uint64(round) {
			t.Fatalf("loss %d: %d losses told", round, n)
		}
		claim.Held = g.Epoch
		if g, err = b.Claim(ctx, claim); err != nil {
			t.Fatal(err)
		}
	}
}
