package relay

import (
	"sync"
	"sync/atomic"
	"time"
)

// balance decides whether one shard takes all clients or each its part. Two threads that wake for half of the packets each cost
// more than one that finds them together; one thread is enough until it is busy most of the time.
type balance struct {
	together atomic.Bool

	mu     sync.Mutex
	shares []float64   // of its time that each shard last worked
	heard  []time.Time // when it said so
	since  time.Time   // when it was last as it should be, or not even known
}

const (
	balanceEvery = 100 * time.Millisecond
	// balanceStale is when the word of a shard that has had nothing to do since is no more heard.
	balanceStale = time.Second
	spreadAbove  = 0.7
	spreadAfter  = 500 * time.Millisecond // a rush of new allocations is over sooner
	gatherBelow  = 0.35
	gatherAfter  = 2 * time.Second
)

func newBalance(shards int) *balance {
	b := &balance{shares: make([]float64, shards), heard: make([]time.Time, shards)}
	b.together.Store(shards > 1)
	return b
}

func (b *balance) gathered() bool { return b.together.Load() }

// told hears the share of its time that a shard worked. change says that clients are to be gathered or spread from now on.
func (b *balance) told(shard int, share float64, now time.Time) (gather, change bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shares[shard], b.heard[shard] = share, now
	all := 0.0
	for i, s := range b.shares {
		if now.Sub(b.heard[i]) < balanceStale {
			all += s
		}
	}
	if len(b.shares) < 2 {
		return false, false
	}
	gather = b.together.Load()
	after := spreadAfter
	right := all <= spreadAbove
	if !gather {
		after, right = gatherAfter, all >= gatherBelow
	}
	if right || b.since.IsZero() {
		b.since = now
	}
	if now.Sub(b.since) < after {
		return gather, false
	}
	b.since = now
	b.together.Store(!gather)
	return !gather, true
}
