package signal

import (
	"time"
)

// ringGrace is how much longer than its caller a callee waits before it ends a ring by itself.
const ringGrace = 5 * time.Second

// ticker runs everything that is due at some time. Waited for by Close.
func (h *Hub) ticker() {
	l := &h.limits
	every := max(50*time.Millisecond, min(time.Second, min(l.ResumeWindow, l.GapTimeout, l.HelloTimeout)/4))
	t := time.NewTicker(every)
	defer t.Stop()
	retry := time.Now()
	for {
		select {
		case <-h.stop:
			return
		case <-t.C:
		}
		now := time.Now()
		h.clock.Store(now.UnixNano())
		h.tickConnections(now)
		h.tickSessions(now)
		h.tickRooms(now)
		h.tickRoll(now)
		h.tickWaiting(now)
		if now.Sub(retry) >= 5*time.Second {
			retry = now
			h.retry()
		}
	}
}

func (h *Hub) tickConnections(now time.Time) {
	var late, silent, leaving []*conn
	type beat struct {
		c     *conn
		frame string
	}
	var quiet []beat
	h.mu.RLock()
	for c := range h.conns {
		hb := c.proto.heartbeat(&h.limits)
		silence := time.Duration(now.UnixNano() - c.lastRead.Load())
		leave := c.leaveAt.Load()
		switch {
		case !c.upgraded.Load(): // the HTTP server's timeouts count
		case c.s.Load() == nil:
			if silence > h.limits.HelloTimeout {
				late = append(late, c)
			}
		case leave != 0 && now.UnixMilli() >= leave:
			leaving = append(leaving, c)
		case silence > hb.until:
			silent = append(silent, c)
		case hb.every > 0:
			if now.UnixNano() >= c.beatAt.Load() {
				c.beatAt.Store(now.Add(hb.every).UnixNano())
				quiet = append(quiet, beat{c, hb.frame})
			}
		case silence > hb.after && !c.pinged.Swap(true):
			quiet = append(quiet, beat{c, hb.frame})
		}
	}
	h.mu.RUnlock()
	for _, c := range late {
		c.shutdown(closeHello, "no hello")
	}
	for _, c := range leaving {
		c.shutdown(closeAway, "this node is going away")
	}
	for _, c := range silent {
		_ = c.Conn.Close()
	}
	for _, b := range quiet {
		if b.c.queueControl([]byte(b.frame)) {
			b.c.kick()
		}
	}
}

func (h *Hub) tickSessions(now time.Time) {
	var over, expired, dirty []*session
	type timed struct {
		s  *session
		id string
		c  *call
	}
	var calls []timed
	h.mu.RLock()
	for _, s := range h.sessions {
		s.mu.Lock()
		switch {
		case s.state == held && now.After(s.until):
			over = append(over, s)
		case s.state != arriving && !s.id.Expires.IsZero() && !now.Before(s.id.Expires):
			expired = append(expired, s)
		}
		if s.state != arriving && s.overdueLocked(now) {
			dirty = append(dirty, s)
		}
		for id, c := range s.calls {
			if now.After(c.until) {
				delete(s.calls, id)
				calls = append(calls, timed{s, id, c})
			}
		}
		for id, r := range s.rings {
			if now.After(r.until.Add(ringGrace)) {
				delete(s.rings, id)
				s.pushLocked(&event{kind: evRingEnded, call: id, reason: reasonTimeout}, 2*h.limits.QueueBytes)
				dirty = append(dirty, s)
			}
		}
		s.mu.Unlock()
	}
	h.mu.RUnlock()
	for _, s := range over {
		h.end(s, reasonGone, closeAway, "")
	}
	for _, s := range expired {
		h.end(s, reasonLeft, closeAuth, "the login or token has expired")
	}
	for _, t := range calls {
		t.s.tell(&event{kind: evDeclined, call: t.id, reason: reasonTimeout})
		h.ringOver(t.id, t.c, reasonTimeout, "")
	}
	flushAll(dirty)
}

// tickRooms gives up members whose node is gone for longer than the resume window.
func (h *Hub) tickRooms(now time.Time) {
	h.mu.Lock()
	var dirty []*session
	for _, r := range h.rooms {
		for peer, m := range r.members {
			if !m.goneAt.IsZero() && now.After(m.goneAt) && m.s == nil {
				dirty = r.absentLocked(dirty, peer, reasonGone)
			}
		}
	}
	for peer, f := range h.moved {
		if now.After(f.until) {
			h.unforwardLocked(peer)
		}
	}
	h.mu.Unlock()
	flushAll(dirty)
}

// retry goes on with what the bus did not take.
func (h *Hub) retry() {
	h.mu.Lock()
	down := h.linkDown
	unverified := false
	if !down {
		for _, r := range h.rooms {
			if r.stale {
				h.rereadLocked(r)
			}
		}
		for _, s := range h.sessions {
			s.mu.Lock()
			unverified = unverified || s.unverified
			s.mu.Unlock()
		}
	}
	h.mu.Unlock()
	switch {
	case down:
	case unverified:
		h.spawn(h.revalidate)
	default:
		h.settle()
	}
}
