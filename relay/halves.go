package relay

import (
	"sync"
	"time"
)

// halves are the ends of a dual allocation's two relayed addresses, which a client may refresh one at a time (RFC 8656
// section 8.1). pion knows one end, the later of the two; the other is kept here.
type halves struct {
	mu    sync.Mutex // table.mu is taken under it
	until [2]time.Time
	timer *time.Timer // of the half that ends first; nil: both end together
	over  bool
}

// endWhole notes when the whole allocation ends.
func (a *allocation) endWhole(until time.Time) {
	a.ends.mu.Lock()
	defer a.ends.mu.Unlock()
	a.ends.until = [2]time.Time{until, until}
	a.watchHalf()
}

// endHalf notes when one half ends, and returns when the later one does.
func (a *allocation) endHalf(f family, until time.Time) time.Time {
	a.ends.mu.Lock()
	defer a.ends.mu.Unlock()
	a.ends.until[f] = until
	a.watchHalf()
	if other := a.ends.until[1-f]; other.After(until) {
		return other
	}
	return until
}

// endOf says when a half ends.
func (a *allocation) endOf(f family) time.Time {
	a.ends.mu.Lock()
	defer a.ends.mu.Unlock()
	return a.ends.until[f]
}

// watchHalf sets the timer anew; the caller holds ends.mu.
func (a *allocation) watchHalf() {
	e := &a.ends
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	if e.over || e.until[four].Equal(e.until[six]) || a.relays[four].Load() == nil || a.relays[six].Load() == nil {
		return
	}
	first := four
	if e.until[six].Before(e.until[four]) {
		first = six
	}
	e.timer = time.AfterFunc(time.Until(e.until[first]), func() { a.halfIsOver(first) })
}

// halfIsOver gives a half back, unless it was refreshed in the meantime.
func (a *allocation) halfIsOver(f family) {
	a.ends.mu.Lock()
	defer a.ends.mu.Unlock()
	if !a.ends.over && !time.Now().Before(a.ends.until[f]) {
		a.server.table.removeHalf(a, f).close()
	}
}

// stopHalves is the end of the allocation.
func (a *allocation) stopHalves() {
	a.ends.mu.Lock()
	defer a.ends.mu.Unlock()
	a.ends.over = true
	a.watchHalf()
}
