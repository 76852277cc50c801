package signal

import (
	"context"
	"errors"
	"slices"

	"callbox/bus"
)

// farewell is what is to be withdrawn from the bus for a session that left
// rooms or has ended. What the bus does not take now is owed, and tried again.
type farewell struct {
	peer    string
	epoch   uint64
	rooms   []string
	reason  string
	user    string // listed as callable under this name
	release bool   // the peer id too
}

// maxOwed farewells are kept for a bus that does not answer; what is beyond is
// forgotten here and ends there with this node.
const maxOwed = 100_000

type farewellTo struct {
	farewell
	h *Hub
}

func (h *Hub) farewell(f farewell) farewellTo { return farewellTo{f, h} }

// try withdraws all of it and keeps what failed.
func (f farewellTo) try(ctx context.Context) {
	h := f.h
	left := f.farewell
	left.rooms = nil
	for _, room := range f.rooms {
		if h.depart(ctx, room, f.peer, f.epoch, f.reason) != nil {
			left.rooms = append(left.rooms, room)
		}
	}
	if f.user != "" {
		if _, err := h.bus.Leave(ctx, userRoom(f.user), f.peer, f.epoch); err == nil {
			left.user = ""
		}
	}
	if f.release && h.bus.Release(ctx, f.peer, f.epoch) == nil {
		left.release = false
	}
	if len(left.rooms) == 0 && left.user == "" && !left.release {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.owed) < maxOwed {
		h.owed = append(h.owed, left)
	}
}

// settle tries again what is owed.
func (h *Hub) settle() {
	h.mu.Lock()
	owed := h.owed
	h.owed = nil
	h.mu.Unlock()
	for _, f := range owed {
		h.background(h.farewell(f).try)
	}
}

// depart takes one peer out of one room and tells everybody.
func (h *Hub) depart(ctx context.Context, name, peer string, epoch uint64, reason string) error {
	h.mu.RLock()
	s := h.sessions[peer]
	back := s != nil && h.inRoomLocked(s, name) != nil
	r := h.rooms[name]
	joining := s != nil && r != nil && r.joins > 0
	h.mu.RUnlock()
	switch {
	case back: // joined again since this was owed
		return nil
	case joining: // perhaps by this peer
		return errTryLater
	}
	now, err := h.bus.Leave(ctx, name, peer, epoch)
	if errors.Is(err, bus.ErrClosed) {
		err = nil
	}
	live := h.liveNodes()

	h.mu.Lock()
	var dirty []*session
	if r := h.rooms[name]; r != nil {
		if err == nil {
			dirty = h.mergeLocked(dirty, r, now, live, reason)
		}
		if m := r.members[peer]; m != nil && m.s == nil && m.epoch <= epoch {
			dirty = r.absentLocked(dirty, peer, reason)
		}
		h.dropViewLocked(r)
	}
	h.mu.Unlock()
	flushAll(dirty)
	if err != nil {
		return err
	}
	h.noteLeft(name, peer, epoch, now, reason)
	var nodes []bus.NodeID
	for i := range now.Members {
		if n := now.Members[i].Node; n != h.self && !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	h.toNodes(nodes, &packet{
		kind: pkLeft, room: name, version: now.Version, from: string(now.Relay),
		peer: peer, epoch: epoch, reason: reason, sid: digest(now.Members),
	})
	return nil
}

// end ends a session: its client, if connected, is closed with code, its peers
// are told. False: it had ended before.
func (h *Hub) end(s *session, reason string, code closeCode, text string) bool {
	h.mu.Lock()
	if h.sessions[s.peer] != s {
		h.mu.Unlock()
		return false
	}
	names := h.removeLocked(s)
	h.mu.Unlock()

	s.mu.Lock()
	c := s.conn
	s.endLocked()
	f := farewell{peer: s.peer, epoch: s.epoch, rooms: names, reason: reason, release: true}
	calls := s.calls
	s.calls, s.rings = nil, nil
	s.sources, s.waiting = nil, nil
	s.mu.Unlock()

	if s.login {
		f.user = s.who.user
	}
	if c != nil {
		c.shutdown(code, text)
	}
	for id, call := range calls {
		h.ringOver(id, call, reasonCancelled, "")
	}
	h.background(h.farewell(f).try)
	return true
}

// removeLocked takes a session out of the tables and returns the rooms it was in.
func (h *Hub) removeLocked(s *session) []string {
	delete(h.sessions, s.peer)
	if h.arriving[s.peer] == s {
		delete(h.arriving, s.peer)
	}
	if set := h.users[s.who.user]; set != nil {
		delete(set, s)
		if len(set) == 0 {
			delete(h.users, s.who.user)
		}
	}
	names := make([]string, 0, len(s.rooms))
	for _, r := range s.rooms {
		names = append(names, r.name)
		if m := r.members[s.peer]; m != nil && m.s == s {
			m.s = nil
		}
	}
	s.rooms = nil
	return names
}
