package relay

import (
	"testing"
	"time"
)

// TestBalance tells a balance of two shards what they did and looks where clients go.
func TestBalance(t *testing.T) {
	b := newBalance(2)
	now := time.Unix(1e9, 0)
	for i, row := range []struct {
		first, second float64       // share of its time that a shard works; negative: it says nothing
		lasts         time.Duration // for so long
		gathered      bool          // at the end
	}{
		{0.1, -1, time.Minute, true},
		{0.9, -1, spreadAfter - balanceEvery, true}, // a rush
		{0.1, -1, balanceEvery, true},
		{0.9, -1, spreadAfter + 2*balanceEvery, false},
		{0.6, 0.6, time.Minute, false},
		{0.3, 0.3, time.Minute, false}, // too much for one
		{0.1, 0.1, gatherAfter - balanceEvery, false},
		{0.4, 0.1, balanceEvery, false},
		{0.1, -1, gatherAfter + balanceStale + 2*balanceEvery, true},
		{0.6, -1, time.Minute, true},
	} {
		for end := now.Add(row.lasts); now.Before(end); now = now.Add(balanceEvery) {
			for shard, share := range []float64{row.first, row.second} {
				if share < 0 {
					continue
				}
				before := b.gathered()
				if gather, change := b.told(shard, share, now); gather != b.gathered() || change != (gather != before) {
					t.Fatalf("row %d: told %v and %v where it was %v and is %v", i, gather, change, before, b.gathered())
				}
			}
		}
		if b.gathered() != row.gathered {
			t.Errorf("row %d: gathered is %v", i, b.gathered())
		}
	}
	if one := newBalance(1); one.gathered() {
		t.Error("one shard gathers for itself")
	} else if _, change := one.told(0, 1, now); change {
		t.Error("one shard changes something")
	}
}
