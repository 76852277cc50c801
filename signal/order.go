package signal

import (
	"slices"
	"strings"
	"time"
)

// source is what a session knows of one sender: how far its messages have come. A sender
// numbers all it sends with one counter and says with each message which one
// it sent before to the same destination (prev), so that a receiver sees a gap
// also when sender or receiver has moved to another node meanwhile.
type source struct {
	sid     uint64 // the sender's session
	last    uint64 // number of the last delivered
	pending []pendingMessage
}

// pendingMessage waits for the one sent before it.
type pendingMessage struct {
	n, prev uint64
	until   time.Time
	p       packet // keeps data of its own
}

// castKey is the sources key of broadcasts by peer in room; signals have the plain peer id.
func castKey(room, peer string) string { return room + "\x00" + peer }

// next takes the number for a message to dest.
func (s *session) next(dest string) (n, prev uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counter++
	if s.chains == nil {
		s.chains = make(map[string]uint64)
	}
	if len(s.chains) > maxSources {
		clear(s.chains) // prev 0 says: do not wait for any
		clear(s.unused)
	}
	prev = s.chains[dest]
	s.chains[dest] = s.counter
	return s.counter, prev
}

// count takes a number for a message that has no order of its own at the receiver, for the case that it has to wait.
func (s *session) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counter++
	return s.counter
}

// unsent takes a number back that was not used in the end, so that nobody waits for it.
func (s *session) unsent(dest string, n, prev uint64) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gaps := s.unused[dest]
	ends := func(at uint64) int { return slices.IndexFunc(gaps, func(g gap) bool { return g.n == at }) }
	if s.chains[dest] != n { // others were sent after it; they may come back too
		if i := ends(prev); i >= 0 {
			gaps[i].n = n
			return
		}
		if len(gaps) == maxGaps {
			gaps = slices.Delete(gaps, 0, 1)
		}
		if s.unused == nil {
			s.unused = make(map[string][]gap)
		}
		s.unused[dest] = append(gaps, gap{n, prev})
		return
	}
	for i := ends(prev); i >= 0; i = ends(prev) {
		prev = gaps[i].prev
		gaps = slices.Delete(gaps, i, i+1)
	}
	s.chains[dest] = prev
	if len(gaps) == 0 {
		delete(s.unused, dest)
	} else {
		s.unused[dest] = gaps
	}
}

// gap is a run of numbers to one destination that were not used: the last of them, and the one before the first.
type gap struct{ n, prev uint64 }

// maxGaps of one destination are remembered. Who waits for a forgotten number waits in vain, but not for long.
const maxGaps = 16

// deliver takes a signal or broadcast from another peer, in the sender's order.
// flush has to follow.
func (s *session) deliver(p *packet, now time.Time) outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == ended:
		return absent
	case s.state == arriving || s.unverified && p.node != s.hub.self:
		return s.waitLocked(p)
	}
	return s.orderLocked(p, now)
}

func (s *session) orderLocked(p *packet, now time.Time) outcome {
	if p.n == 0 { // not numbered: in the order of arrival
		return s.pushPacketLocked(p)
	}
	key := p.from
	if p.kind != pkSignal {
		key = castKey(p.room, p.from)
	}
	src := s.sources[key]
	if src == nil {
		if s.sources == nil {
			s.sources = make(map[string]*source)
		}
		if len(s.sources) >= maxSources {
			s.forgetSourcesLocked()
		}
		src = &source{sid: p.sid}
		if !s.fresh || p.kind != pkSignal {
			src.last = p.prev // nothing is known of what was before
		}
		s.sources[key] = src
	}
	switch {
	case p.sid < src.sid:
		return stale
	case p.sid > src.sid: // the sender began anew; what it sent before is over
		for i := range src.pending {
			s.unpendLocked(&src.pending[i])
		}
		*src = source{sid: p.sid, last: p.prev}
	}
	if p.n <= src.last {
		return stale
	}
	if p.prev > src.last {
		if s.pending >= maxPending || s.pendingBytes+len(p.data) > s.hub.limits.QueueBytes {
			return full
		}
		m := pendingMessage{n: p.n, prev: p.prev, until: now.Add(s.hub.limits.GapTimeout), p: *p}
		m.p.data = append([]byte(nil), p.data...)
		i, dup := slices.BinarySearchFunc(src.pending, p.n, func(m pendingMessage, n uint64) int {
			return int(int64(m.n - n))
		})
		if dup {
			return stale
		}
		src.pending = slices.Insert(src.pending, i, m)
		s.pending++
		s.pendingBytes += len(p.data)
		return accepted
	}
	out := s.pushPacketLocked(p)
	src.last = p.n
	s.releaseLocked(src, time.Time{})
	return out
}

// releaseLocked delivers what waits no longer: its predecessor is there, or
// its time is over by now.
func (s *session) releaseLocked(src *source, now time.Time) {
	for len(src.pending) > 0 {
		m := &src.pending[0]
		if m.prev > src.last && (now.IsZero() || now.Before(m.until)) {
			return
		}
		if s.pushPacketLocked(&m.p) == full {
			s.hub.refuseLater(&m.p, reasonBusy)
		}
		src.last = m.n
		s.unpendLocked(m)
		src.pending[0] = pendingMessage{}
		src.pending = src.pending[1:]
	}
	src.pending = nil
}

// unpendLocked: a message does not wait any more.
func (s *session) unpendLocked(m *pendingMessage) {
	s.pending--
	s.pendingBytes -= len(m.p.data)
}

// overdueLocked gives up waiting where the time is over. True: flush has to follow.
func (s *session) overdueLocked(now time.Time) bool {
	before := s.pending
	if before == 0 {
		return false
	}
	for _, src := range s.sources {
		s.releaseLocked(src, now)
	}
	return s.pending != before
}

func (s *session) pushPacketLocked(p *packet) outcome {
	e := event{kind: evSignal, who: person{peer: p.from}, data: p.data}
	limit := s.hub.limits.QueueBytes
	if p.kind != pkSignal {
		e.kind, e.room = evBroadcast, p.room
		limit *= 2
	}
	return s.pushLocked(&e, limit)
}

// forgetSourcesLocked makes room: the next message of a forgotten sender is taken as
// it comes.
func (s *session) forgetSourcesLocked() {
	for k, src := range s.sources {
		if len(src.pending) == 0 {
			delete(s.sources, k)
		}
	}
	s.fresh = false
}

// forgetRoom forgets how far the broadcasts of a room have come: of those that are sent before the session is back nothing
// will be heard, and the next one must not wait for them.
func (s *session) forgetRoom(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, src := range s.sources {
		if strings.HasPrefix(key, castKey(name, "")) {
			for i := range src.pending {
				s.unpendLocked(&src.pending[i])
			}
			delete(s.sources, key)
		}
	}
}

// waitLocked keeps what came before the session may deliver.
func (s *session) waitLocked(p *packet) outcome {
	if s.waitBytes+len(p.data)+frameOverhead > s.hub.limits.QueueBytes {
		return full
	}
	q := *p
	q.data = append([]byte(nil), p.data...)
	s.waiting = append(s.waiting, q)
	s.waitBytes += len(p.data) + frameOverhead
	return accepted
}
