package signal

import (
	"context"
	"time"

	"callbox/bus"
)

// forward is where a peer has gone that was here. Owned by Hub.mu.
type forward struct {
	node  bus.NodeID
	rooms map[string]bool
	user  string // callable under this name
	until time.Time
}

// forwardLocked remembers where a peer has gone.
func (h *Hub) forwardLocked(peer string, f *forward) {
	h.unforwardLocked(peer)
	h.moved[peer] = f
	for room := range f.rooms {
		if h.movedFrom[room] == nil {
			h.movedFrom[room] = make(map[string]struct{})
		}
		h.movedFrom[room][peer] = struct{}{}
	}
}

// unforwardLocked forgets it.
func (h *Hub) unforwardLocked(peer string) {
	f := h.moved[peer]
	if f == nil {
		return
	}
	delete(h.moved, peer)
	for room := range f.rooms {
		delete(h.movedFrom[room], peer)
		if len(h.movedFrom[room]) == 0 {
			delete(h.movedFrom, room)
		}
	}
}

// stateChunk is the part of a session's state in one packet.
const stateChunk = 256 << 10

// take asks the former holder for the session and waits for it. Nil: there is none.
func (h *Hub) take(s *session, g bus.Grant) []byte {
	if h.bus.Send(g.Previous, (&packet{kind: pkTake, peer: s.peer, epoch: g.Epoch}).encode()) != nil {
		return nil
	}
	t := time.NewTimer(h.limits.TakeTimeout)
	defer t.Stop()
	var parts [][]byte
	size := 0
	for {
		select {
		case p := <-s.arrived:
			if p.epoch != g.Epoch {
				continue
			}
			if p.sid == 0 || p.n != uint64(len(parts)+1) {
				return nil
			}
			parts = append(parts, p.data)
			size += len(p.data)
			if p.n == p.prev {
				b := make([]byte, 0, size)
				for _, part := range parts {
					b = append(b, part...)
				}
				return b
			}
		case <-t.C:
			h.log.Warn("the session's holder did not answer", logNode, g.Previous)
			return nil
		case <-h.ctx.Done():
			return nil
		}
	}
}

// stateArrived hands one part of a state to who waits for it.
func (h *Hub) stateArrived(p *packet) {
	var parts chan packet
	h.mu.RLock()
	if s := h.arriving[p.peer]; s != nil {
		parts = s.arrived
	}
	h.mu.RUnlock()
	if parts == nil {
		return
	}
	select {
	case parts <- *p:
	default: // never so many parts
	}
}

// taken gives a session away to the node that holds its claim now.
func (h *Hub) taken(to bus.NodeID, p *packet) {
	none := packet{kind: pkState, peer: p.peer, epoch: p.epoch}
	h.mu.Lock()
	s := h.sessions[p.peer]
	a := h.arriving[p.peer]
	if a != nil && a.ready != nil { // it goes on when it is here
		h.mu.Unlock()
		q := *p
		h.spawn(func() {
			select {
			case <-a.ready:
				h.taken(to, &q)
			case <-h.stop:
			}
		})
		return
	}
	if s == nil || a != nil {
		h.mu.Unlock()
		h.tellNode(to, &none)
		return
	}
	s.mu.Lock()
	if s.epoch >= p.epoch || s.state == ended {
		s.mu.Unlock()
		h.mu.Unlock()
		h.tellNode(to, &none)
		return
	}
	if s.handling > 0 { // it goes when that message is done
		q := *p
		s.after = func() { h.taken(to, &q) }
		s.mu.Unlock()
		h.mu.Unlock()
		return
	}
	cargo := s.cargoLocked()
	c, epoch := s.conn, s.epoch
	s.endLocked()
	s.conn = nil
	s.mu.Unlock()

	cargo.Rooms = h.roomHeadsLocked(s)
	f := &forward{node: to, rooms: make(map[string]bool), until: time.Now().Add(forwardFor)}
	if s.login {
		f.user = s.who.user
	}
	rooms := s.rooms
	h.removeLocked(s)
	for _, r := range rooms {
		f.rooms[r.name] = true
		if m := r.members[s.peer]; m != nil {
			m.node, m.epoch = to, p.epoch
		}
		h.dropViewLocked(r)
	}
	h.forwardLocked(s.peer, f)
	h.mu.Unlock()

	if c != nil {
		c.shutdown(closeReplaced, "resumed on another node")
	}
	h.ship(to, p, &cargo)
	h.background(func(ctx context.Context) {
		if err := h.bus.Release(ctx, s.peer, epoch); err != nil {
			h.log.Debug("a moved session's claim not released", logPeer, s.peer, logError, err)
		}
	})
}

// ship sends a state in parts.
func (h *Hub) ship(to bus.NodeID, p *packet, cargo *sessionCargo) {
	b, err := cargo.encode()
	if err != nil {
		h.log.Error("session state", logPeer, p.peer, logError, err)
		h.tellNode(to, &packet{kind: pkState, peer: p.peer, epoch: p.epoch})
		return
	}
	total := (len(b) + stateChunk - 1) / stateChunk
	for i := range total {
		part := b[i*stateChunk : min(len(b), (i+1)*stateChunk)]
		h.tellNode(to, &packet{
			kind: pkState, peer: p.peer, epoch: p.epoch, sid: 1,
			n: uint64(i + 1), prev: uint64(total), data: part,
		})
	}
}

// roomHeadsLocked is what the session's client knows of its rooms.
func (h *Hub) roomHeadsLocked(s *session) []roomHead {
	heads := make([]roomHead, 0, len(s.rooms))
	for _, r := range s.rooms {
		head := roomHead{Name: r.name, Version: r.version}
		for peer, m := range r.members {
			if peer != s.peer {
				head.Members = append(head.Members, memberHead{peer, m.who.user, m.who.name, m.node})
			}
		}
		heads = append(heads, head)
	}
	return heads
}

// settleIn makes an arriving session one of this node.
func (h *Hub) settleIn(s *session, cargo *sessionCargo) bool {
	s.restore(cargo)
	live := h.liveNodes()
	for i := range cargo.Rooms {
		head := &cargo.Rooms[i]
		if err := h.enter(s, head.Name, false, func(r *room, _ bus.Room) { h.catchUpLocked(s, r, head, live) }); err != nil {
			h.log.Warn("a moved session could not enter its room", logRoom, head.Name, logError, err)
			return false
		}
	}
	h.mu.Lock()
	delete(h.arriving, s.peer)
	h.unforwardLocked(s.peer)
	in := make(map[string]bool, len(s.rooms))
	for _, r := range s.rooms {
		in[r.name] = true
	}
	h.mu.Unlock()
	s.awake(func(name string) bool { return in[name] })
	h.enlist(s)
	return true
}

// catchUpLocked tells a client the difference between what it was told of a room on its former node
// and the room as it is.
func (h *Hub) catchUpLocked(s *session, r *room, head *roomHead, live map[bus.NodeID]bool) {
	known := make(map[string]bool, len(head.Members))
	for i := range head.Members {
		k := &head.Members[i]
		known[k.Peer] = true
		if r.members[k.Peer] != nil {
			continue
		}
		who := person{k.Peer, k.User, k.Name}
		if !live[k.Node] { // it may come back
			r.members[k.Peer] = &member{who: who, node: k.Node, goneAt: time.Now().Add(h.limits.ResumeWindow)}
			continue
		}
		s.push(&event{kind: evPeerLeft, room: r.name, version: r.version, who: who, reason: reasonGone})
	}
	for peer, m := range r.members {
		if peer != s.peer && !known[peer] {
			s.push(&event{kind: evPeerJoined, room: r.name, version: r.version, who: m.who})
		}
	}
}

// enlist makes a logged-in user callable.
func (h *Hub) enlist(s *session) {
	if !s.login {
		return
	}
	h.mu.Lock()
	if h.sessions[s.peer] != s {
		h.mu.Unlock()
		return
	}
	set := h.users[s.who.user]
	if set == nil {
		set = make(map[*session]struct{})
		h.users[s.who.user] = set
	}
	set[s] = struct{}{}
	h.mu.Unlock()
	m := s.member()
	ctx, cancel := h.call()
	defer cancel()
	if _, err := h.bus.Join(ctx, userRoom(s.who.user), m, ringConnections); err != nil {
		h.log.Debug("not callable", logUser, s.who.user, logError, err)
	}
}

// park leaves a session to whichever node its client comes to, when this one stops.
func (h *Hub) park(ctx context.Context, s *session) {
	h.mu.Lock()
	s.mu.Lock()
	if s.state != held && s.state != live {
		s.mu.Unlock()
		h.mu.Unlock()
		return
	}
	cargo := s.cargoLocked()
	epoch := s.epoch
	s.endLocked()
	s.mu.Unlock()
	cargo.Rooms = h.roomHeadsLocked(s)
	delete(h.sessions, s.peer)
	h.mu.Unlock()
	b, err := cargo.encode()
	if err == nil && len(b) <= bus.MaxParked {
		err = h.bus.Park(ctx, s.peer, epoch, b, h.limits.ResumeWindow)
	}
	if err != nil {
		h.log.Debug("not parked", logPeer, s.peer, logError, err)
	}
}
