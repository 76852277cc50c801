package bus

import (
	"sync/atomic"
	"time"
)

// Stats are a node's counters since it was opened.
type Stats struct {
	LinkUp    bool
	Nodes     int               // live nodes, this one included
	Published uint64            // messages handed over to Send and accepted
	Received  uint64            // messages handed to Handler.Message
	Lost      map[string]uint64 // messages handed back, by reason: "node-gone", "no-link"
	Refused   map[string]uint64 // messages not accepted by Send, by reason: "node-gone", "busy", "too-large", "closed"
	Resent    uint64            // messages sent again because no receipt came
	LinkDowns uint64            // times the link was lost
	Peers     int               // peers this node holds claims for
	Latency   Histogram         // of publishing: from Send to the broker's answer
}

// Histogram is a distribution of durations, not cumulative: Counts[i] fell
// into (Bounds[i-1], Bounds[i]], the last count is what is above all bounds.
type Histogram struct {
	Bounds []time.Duration
	Counts []uint64
	Sum    time.Duration
}

// latencyBounds suit a broker that is tens of microseconds to seconds away.
func latencyBounds() [11]time.Duration {
	return [11]time.Duration{
		50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		25 * time.Millisecond, 100 * time.Millisecond, time.Second,
	}
}

// Counters collects Stats without locks. The zero value is ready.
type Counters struct {
	Published, Received, Resent, LinkDowns         atomic.Uint64
	LostGone, LostLink                             atomic.Uint64
	RefusedGone, RefusedBusy, RefusedLarge, Closed atomic.Uint64

	latency [12]atomic.Uint64
	sum     atomic.Int64
}

// Observe counts one publish latency.
func (c *Counters) Observe(d time.Duration) {
	bounds := latencyBounds()
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	c.latency[i].Add(1)
	c.sum.Add(int64(d))
}

// Stats returns the counters; the gauges are the caller's to fill in.
func (c *Counters) Stats() Stats {
	bounds := latencyBounds()
	s := Stats{
		Published: c.Published.Load(),
		Received:  c.Received.Load(),
		Lost:      map[string]uint64{"node-gone": c.LostGone.Load(), "no-link": c.LostLink.Load()},
		Refused: map[string]uint64{
			"node-gone": c.RefusedGone.Load(), "busy": c.RefusedBusy.Load(),
			"too-large": c.RefusedLarge.Load(), "closed": c.Closed.Load(),
		},
		Resent:    c.Resent.Load(),
		LinkDowns: c.LinkDowns.Load(),
		Latency:   Histogram{Bounds: bounds[:], Sum: time.Duration(c.sum.Load())},
	}
	for i := range c.latency {
		s.Latency.Counts = append(s.Latency.Counts, c.latency[i].Load())
	}
	return s
}
