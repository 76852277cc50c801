package signal

import (
	"errors"
	"slices"
	"time"

	"callbox/bus"
)

// room is this node's view of a room in which it has members. All fields are
// owned by Hub.mu.
type room struct {
	name    string
	version uint64
	relay   bus.NodeID
	members map[string]*member
	joins   int    // joins under way, which keep the view alive
	want    uint64 // a version that is known to exist; a view below it is read again
	stale   bool   // to be read again
	reading bool
}

type member struct {
	who    person
	node   bus.NodeID
	epoch  uint64
	s      *session  // if on this node
	goneAt time.Time // its node is gone, or it is lost: when the others are told; zero: it is there
	lost   bool      // the bus has forgotten it; its node lives, and is about to put it back
}

// viewLocked is the view of a room, made if there is none.
func (h *Hub) viewLocked(name string) *room {
	r := h.rooms[name]
	if r == nil {
		r = &room{name: name, members: make(map[string]*member)}
		h.rooms[name] = r
	}
	return r
}

// dropViewLocked forgets a room without members here.
func (h *Hub) dropViewLocked(r *room) {
	if r.joins > 0 || h.rooms[r.name] != r {
		return
	}
	for _, m := range r.members {
		if m.s != nil {
			return
		}
	}
	delete(h.rooms, r.name)
}

// emitLocked queues an event for the members on this node, except one peer.
// flush has to follow for all that are returned.
func (r *room) emitLocked(dirty []*session, e *event, except string) []*session {
	for peer, m := range r.members {
		if m.s != nil && peer != except {
			m.s.push(e)
			dirty = append(dirty, m.s)
		}
	}
	return dirty
}

func flushAll(dirty []*session) {
	for _, s := range dirty {
		s.flush()
	}
}

// nodesLocked are the other nodes that have members, each once.
func (r *room) nodesLocked(self bus.NodeID) []bus.NodeID {
	var nodes []bus.NodeID
	for _, m := range r.members {
		if m.node != self && m.there() && !slices.Contains(nodes, m.node) {
			nodes = append(nodes, m.node)
		}
	}
	return nodes
}

// mergeLocked makes the view what the bus says, and tells the members here the
// differences. A member that is missing because its node is gone stays for the
// resume window; one that is missing because the bus has forgotten it, until its
// node has had the time to put it back.
func (h *Hub) mergeLocked(dirty []*session, r *room, now bus.Room, live map[bus.NodeID]bool, reason string) []*session {
	if now.Version < r.version {
		return dirty
	}
	forgotten := now.Began > r.version // with our own members, who never left
	r.version = now.Version
	dirty = r.relayLocked(dirty, now.Relay)
	there := make(map[string]bool, len(now.Members))
	for i := range now.Members {
		m := &now.Members[i]
		there[m.Peer] = true
		if own := r.members[m.Peer]; own != nil && own.s != nil && m.Node != h.self && m.Epoch > own.epoch {
			h.doubt(own.s)
		}
		dirty = r.presentLocked(dirty, m.Peer, m.Node, m.Epoch, unpackInfo(m.Peer, m.Info))
	}
	for peer, m := range r.members {
		switch {
		case there[peer] || m.s != nil:
			// One of ours that the bus has lost is put back by revalidation.
		case m.lost && live[m.node]:
		case live[m.node] && (forgotten || !m.goneAt.IsZero()):
			m.loseLocked()
		case live[m.node]:
			dirty = r.absentLocked(dirty, peer, reason)
		case m.there():
			m.goneAt, m.lost = h.goneAt(r.name), false
		}
	}
	return dirty
}

// putBack is how long a node has for putting its members back into rooms that the bus has forgotten: one try, and another
// at the next retry.
const putBack = 10 * time.Second

// there says whether the member's node lives.
func (m *member) there() bool { return m.goneAt.IsZero() || m.lost }

// loseLocked: the bus does not know the member any more, but its node lives.
func (m *member) loseLocked() { m.goneAt, m.lost = time.Now().Add(putBack), true }

// goneAt is when members of a room on a node that has just ended are given up.
func (h *Hub) goneAt(room string) time.Time {
	if named(room) { // nobody there could resume
		return time.Now()
	}
	return time.Now().Add(h.limits.ResumeWindow)
}

func (r *room) relayLocked(dirty []*session, relay bus.NodeID) []*session {
	if relay == "" || relay == r.relay {
		return dirty
	}
	first := r.relay == ""
	r.relay = relay
	if first {
		return dirty
	}
	return r.emitLocked(dirty, &event{kind: evRoomChanged, room: r.name, version: r.version, relay: relay}, "")
}

// presentLocked: the peer is in the room, on that node.
func (r *room) presentLocked(dirty []*session, peer string, node bus.NodeID, epoch uint64, who person) []*session {
	m := r.members[peer]
	if m == nil {
		r.members[peer] = &member{who: who, node: node, epoch: epoch}
		return r.emitLocked(dirty, &event{kind: evPeerJoined, room: r.name, version: r.version, who: who}, peer)
	}
	if epoch < m.epoch {
		return dirty
	}
	if m.who != who { // the same id for somebody else
		dirty = r.absentLocked(dirty, peer, reasonGone)
		return r.presentLocked(dirty, peer, node, epoch, who)
	}
	m.node, m.epoch, m.goneAt, m.lost = node, epoch, time.Time{}, false
	return dirty
}

// absentLocked: the peer is not in the room any more.
func (r *room) absentLocked(dirty []*session, peer, reason string) []*session {
	m := r.members[peer]
	delete(r.members, peer)
	return r.emitLocked(dirty, &event{kind: evPeerLeft, room: r.name, version: r.version, who: m.who, reason: reason}, peer)
}

// peopleLocked are the members as clients see them.
func (r *room) peopleLocked() []person {
	people := make([]person, 0, len(r.members))
	for _, m := range r.members {
		people = append(people, m.who)
	}
	return people
}

func (h *Hub) inRoomLocked(s *session, name string) *room {
	for _, r := range s.rooms {
		if r.name == name {
			return r
		}
	}
	return nil
}

// join puts the session into a room and answers with the room.
func (h *Hub) join(s *session, name, id string) *fault {
	h.mu.Lock()
	if r := h.inRoomLocked(s, name); r != nil {
		s.push(r.joinedLocked(id))
		h.mu.Unlock()
		s.flush()
		return nil
	}
	if len(s.rooms) >= h.limits.RoomsPerPeer {
		h.mu.Unlock()
		return &fault{codeTooManyRooms, "room", "leave a room first"}
	}
	h.mu.Unlock()
	err := h.enter(s, name, true, func(r *room, _ bus.Room) { s.push(r.joinedLocked(id)) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bus.ErrRoomFull):
		return &fault{codeRoomFull, "room", "the room is full"}
	}
	h.log.Debug("join failed", logRoom, name, logError, err)
	return &fault{codeBusy, "", "the room directory did not answer; try again"}
}

func (r *room) joinedLocked(id string) *event {
	return &event{kind: evJoined, id: id, room: r.name, version: r.version, relay: r.relay, people: r.peopleLocked()}
}

// enter registers the session in a room of the bus and tells the others. fresh: it was not in it before, on any node.
// then is called with Hub.mu held, before any later change of the room is queued; now is the room as it was when the
// session came.
func (h *Hub) enter(s *session, name string, fresh bool, then func(r *room, now bus.Room)) error {
	h.mu.Lock()
	r := h.viewLocked(name)
	r.joins++
	relay := r.relay
	h.mu.Unlock()

	me := s.member()
	me.Relay = relay
	ctx, cancel := h.call()
	now, err := h.bus.Join(ctx, name, me, s.proto.roomSize(name, &h.limits))
	cancel()
	live := h.liveNodes()

	h.mu.Lock()
	r.joins--
	if err != nil {
		h.dropViewLocked(r)
		h.mu.Unlock()
		if !errors.Is(err, bus.ErrRoomFull) && !errors.Is(err, bus.ErrFenced) {
			// Only the answer may be lost: nobody is to see a member that does not know it is one.
			h.background(h.farewell(farewell{peer: s.peer, epoch: me.Epoch, rooms: []string{name}, reason: reasonLeft}).try)
		}
		return err
	}
	if h.sessions[s.peer] != s { // ended meanwhile
		h.dropViewLocked(r)
		h.mu.Unlock()
		h.background(h.farewell(farewell{peer: s.peer, epoch: me.Epoch, rooms: []string{name}, reason: reasonGone}).try)
		return nil
	}
	dirty := h.mergeLocked(nil, r, now, live, reasonLeft)
	dirty = r.presentLocked(dirty, s.peer, h.self, me.Epoch, s.who)
	m := r.members[s.peer]
	m.s = s
	if !slices.Contains(s.rooms, r) {
		s.rooms = append(s.rooms, r)
	}
	then(r, now)
	p := packet{
		kind: pkJoined, room: name, version: now.Version, from: string(now.Relay),
		peer: s.peer, user: s.who.user, name: s.who.name, epoch: me.Epoch, sid: digest(now.Members),
	}
	nodes := r.nodesLocked(h.self)
	h.mu.Unlock()

	h.noteJoined(name, s.who, me.Epoch, now, fresh)
	flushAll(dirty)
	s.flush()
	h.toNodes(nodes, &p)
	return nil
}

// leave takes the session out of a room on the client's wish.
func (h *Hub) leave(s *session, name, id string) *fault {
	h.mu.RLock()
	r := h.inRoomLocked(s, name)
	h.mu.RUnlock()
	if r == nil {
		return &fault{codeNotInRoom, "room", "not in that room"}
	}
	h.mu.Lock()
	s.rooms = slices.DeleteFunc(s.rooms, func(x *room) bool { return x == r })
	if m := r.members[s.peer]; m != nil && m.s == s {
		m.s = nil // no presence and no broadcast from here on
	}
	s.push(&event{kind: evLeft, id: id, room: name})
	s.forgetRoom(name)
	h.mu.Unlock()
	s.flush()
	f := h.farewell(farewell{peer: s.peer, epoch: s.member().Epoch, rooms: []string{name}, reason: reasonLeft})
	ctx, cancel := h.call()
	defer cancel()
	f.try(ctx)
	return nil
}

// presence applies what another node says about one of its peers.
func (h *Hub) presence(from bus.NodeID, p *packet) {
	h.mu.Lock()
	r := h.rooms[p.room]
	if r == nil || p.version <= r.version {
		h.mu.Unlock()
		return
	}
	var dirty []*session
	before := r.version
	r.version = p.version
	m := r.members[p.peer]
	switch {
	case m != nil && m.s != nil: // a peer of ours: only the bus knows which is newer
		if p.epoch > m.epoch {
			h.doubt(m.s)
		}
	case p.kind == pkJoined:
		dirty = r.presentLocked(dirty, p.peer, from, p.epoch, p.who())
	case m != nil && m.epoch <= p.epoch:
		dirty = r.absentLocked(dirty, p.peer, p.reason)
	}
	if r.digestLocked() == p.sid {
		dirty = r.relayLocked(dirty, bus.NodeID(p.from))
	} else { // something else has changed too that we have not heard of
		r.version = before
		r.want = max(r.want, p.version)
		h.rereadLocked(r)
	}
	h.mu.Unlock()
	flushAll(dirty)
}

// digest sums up who is in a room, so that a node sees whether the change it hears of is the only
// one since its view.
func digest(members []bus.Member) uint64 {
	var d uint64
	for i := range members {
		d += memberDigest(members[i].Peer, members[i].Epoch)
	}
	return d
}

func (r *room) digestLocked() uint64 {
	var d uint64
	for peer, m := range r.members {
		if m.goneAt.IsZero() {
			d += memberDigest(peer, m.epoch)
		}
	}
	return d
}

// memberDigest is FNV-1a over id and epoch.
func memberDigest(peer string, epoch uint64) uint64 {
	d := uint64(14695981039346656037)
	for i := range len(peer) {
		d = (d ^ uint64(peer[i])) * 1099511628211
	}
	for range 8 {
		d = (d ^ epoch&0xff) * 1099511628211
		epoch >>= 8
	}
	return d
}
