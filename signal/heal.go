package signal

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"callbox/bus"
)

// rereadTries bounds how often one reading of a room is repeated at once because the
// room has changed meanwhile.
const rereadTries = 4

// rereadLocked gets a room's state from the bus and tells the differences, soon. Many calls are one
// reading.
func (h *Hub) rereadLocked(r *room) {
	r.stale = true
	if r.reading {
		return
	}
	r.reading = true
	h.background(func(ctx context.Context) {
		for range rereadTries {
			if !h.reread(ctx, r) {
				break
			}
		}
		h.mu.Lock()
		r.reading = false // if it is still stale, the ticker tries again
		h.mu.Unlock()
	})
}

// reread is one reading. True: the view is still behind.
func (h *Hub) reread(ctx context.Context, r *room) bool {
	h.mu.Lock()
	r.stale = false
	known := h.rooms[r.name] == r
	h.mu.Unlock()
	if !known {
		return false
	}
	now, err := h.bus.Room(ctx, r.name)
	live := h.liveNodes()
	h.mu.Lock()
	var dirty []*session
	if err != nil {
		r.stale = true
		h.mu.Unlock()
		return false
	}
	dirty = h.mergeLocked(dirty, r, now, live, reasonLeft)
	r.stale = r.stale || r.version < r.want
	again := r.stale
	h.mu.Unlock()
	flushAll(dirty)
	return again
}

// NodesChanged marks the members on nodes that are gone: they have the resume
// window to come back elsewhere.
func (h *Hub) NodesChanged(nodes []bus.NodeInfo) {
	live := make(map[bus.NodeID]bool, len(nodes)+1)
	draining := make(map[bus.NodeID]bool)
	for i := range nodes {
		live[nodes[i].ID] = true
		draining[nodes[i].ID] = nodes[i].Draining
	}
	live[h.self] = true
	h.rollNodes(live)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.rooms {
		for _, m := range r.members {
			switch {
			case m.s != nil:
			case live[m.node]:
				if !m.there() { // back before it was given up
					m.loseLocked()
					h.rereadLocked(r)
				}
			case m.there():
				m.goneAt, m.lost = h.goneAt(r.name), false
			}
		}
		if r.relay != "" && (!live[r.relay] || draining[r.relay]) {
			h.rereadLocked(r) // another relay is chosen
		}
	}
}

// Link hears that the bus is out of reach, or back. While it is out of reach
// peers of this node go on among themselves; what comes from other nodes
// afterwards waits until the claims are renewed.
func (h *Hub) Link(up bool) {
	h.mu.Lock()
	h.linkDown = !up
	for _, s := range h.sessions {
		s.mu.Lock()
		s.unverified = s.unverified || s.state == live || s.state == held
		s.mu.Unlock()
	}
	h.mu.Unlock()
	if up {
		h.spawn(h.revalidate)
	}
}

// revalidate renews every claim and membership, after a random delay: every node does
// so at the same moment.
func (h *Hub) revalidate() {
	t := time.NewTimer(rand.N(500 * time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.stop:
		return
	}
	h.mu.RLock()
	var todo []*session
	for _, s := range h.sessions {
		s.mu.Lock()
		if s.unverified {
			todo = append(todo, s)
		}
		s.mu.Unlock()
	}
	h.mu.RUnlock()
	for _, s := range todo {
		h.background(func(ctx context.Context) { h.verify(ctx, s) })
	}
	h.settle()
}

// verify renews one session's claim and memberships, or lets the session go if it lives elsewhere
// by now.
func (h *Hub) verify(ctx context.Context, s *session) {
	s.mu.Lock()
	todo, epoch := s.unverified && s.state != ended && !s.verifying, s.epoch
	s.verifying = s.verifying || todo
	s.mu.Unlock()
	if !todo {
		return // or somebody is at it: of two claims at once the second would be fenced by the first
	}
	defer func() {
		s.mu.Lock()
		s.verifying = false
		s.mu.Unlock()
	}()
	g, err := h.bus.Claim(ctx, bus.Claim{Peer: s.peer, Proof: s.proof, Held: epoch})
	switch {
	case errors.Is(err, bus.ErrFenced), errors.Is(err, bus.ErrTaken):
		h.lose(s)
		return
	case err != nil:
		return // the ticker tries again
	}
	s.mu.Lock()
	s.epoch = max(s.epoch, g.Epoch)
	s.mu.Unlock()
	h.mu.RLock()
	var names []string
	in := make(map[string]bool)
	for _, r := range s.rooms {
		names = append(names, r.name)
		in[r.name] = true
	}
	h.mu.RUnlock()
	for _, name := range names {
		if err := h.enter(s, name, false, func(*room, bus.Room) {}); err != nil {
			h.log.Debug("room not joined again", logRoom, name, logError, err)
			if !errors.Is(err, bus.ErrRoomFull) {
				return
			}
		}
	}
	h.enlist(s)
	s.awake(func(name string) bool { return in[name] })
	s.flush()
}

// doubt asks the bus whether a session is still this node's: another one speaks of it with a higher epoch, and its claim
// was not heard of.
func (h *Hub) doubt(s *session) {
	s.mu.Lock()
	s.unverified = s.unverified || s.state == live || s.state == held
	s.mu.Unlock()
	h.background(func(ctx context.Context) { h.verify(ctx, s) })
}

// lose drops a session that another node holds by now.
func (h *Hub) lose(s *session) {
	h.mu.Lock()
	if h.sessions[s.peer] != s {
		h.mu.Unlock()
		return
	}
	rooms := s.rooms
	h.removeLocked(s)
	for _, r := range rooms {
		h.dropViewLocked(r)
		if h.rooms[r.name] == r {
			h.rereadLocked(r)
		}
	}
	h.mu.Unlock()
	s.mu.Lock()
	c := s.conn
	waiting := s.waiting
	s.endLocked()
	s.waiting = nil
	s.mu.Unlock()
	for i := range waiting {
		if named(s.peer) {
			h.elsewhere(&waiting[i])
			continue
		}
		h.refuse(&waiting[i], reasonGone)
	}
	if c != nil {
		c.shutdown(closeReplaced, "resumed on another node")
	}
}
