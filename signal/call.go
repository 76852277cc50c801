package signal

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"callbox/bus"
)

// call is a call going out that nobody has accepted yet. It belongs to the caller's session.
type call struct {
	user  string // who is called
	room  string
	until time.Time
	nodes []bus.NodeID // where it rings
}

// ring is a call coming in. It belongs to one of the callee's sessions.
type ring struct {
	from  person
	room  string
	until time.Time
	node  bus.NodeID // where the caller was
	id    string     // of the accept or decline that was sent
	done  bool       // answered by this client, the outcome is on the way
}

// userRoom is the room of the bus that lists a logged-in user's connections.
func userRoom(user string) string { return "@user/" + user }

// callUser rings every connection of a user.
func (h *Hub) callUser(s *session, user, room, id string) *fault {
	s.mu.Lock()
	n := len(s.calls)
	s.mu.Unlock()
	if n >= ringsPerPeer {
		return &fault{codeTooManyCalls, "", "too many calls are ringing"}
	}
	ctx, cancel := h.call()
	list, err := h.bus.Room(ctx, userRoom(user))
	cancel()
	if err != nil {
		h.log.Debug("call", logUser, user, logError, err)
		return &fault{codeBusy, "", "the user directory did not answer; try again"}
	}
	var nodes []bus.NodeID
	for i := range list.Members {
		m := &list.Members[i]
		if m.Peer != s.peer && !slices.Contains(nodes, m.Node) {
			nodes = append(nodes, m.Node)
		}
	}
	if len(nodes) == 0 {
		return &fault{codeUnavailable, "user", "nobody of that name is connected"}
	}
	c := &call{user: user, room: room, until: time.Now().Add(h.limits.RingTimeout), nodes: nodes}
	callID := strings.ToLower(rand.Text())
	s.mu.Lock()
	if s.calls == nil {
		s.calls = make(map[string]*call)
	}
	s.calls[callID] = c
	s.pushLocked(&event{kind: evCalling, id: id, call: callID, user: user, room: room, until: c.until}, 2*h.limits.QueueBytes)
	s.mu.Unlock()
	s.flush()
	h.spread(nodes, &packet{
		kind: pkRing, call: callID, from: s.peer, user: s.who.user, name: s.who.name,
		to: user, room: room, time: stamp(c.until),
	})
	return nil
}

// spread sends to nodes of which this one may be one.
func (h *Hub) spread(nodes []bus.NodeID, p *packet) {
	others := make([]bus.NodeID, 0, len(nodes))
	here := false
	for _, n := range nodes {
		if n == h.self {
			here = true
		} else {
			others = append(others, n)
		}
	}
	h.toNodes(others, p)
	if !here {
		return
	}
	switch p.kind {
	case pkRing:
		h.ringHere(h.self, p)
	case pkRingOver:
		h.ringOverHere(p)
	}
}

// callees are the sessions of a user on this node, and the nodes that others have moved to.
func (h *Hub) callees(user string) (here []*session, away []bus.NodeID) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for s := range h.users[user] {
		here = append(here, s)
	}
	for _, f := range h.moved {
		if f.user == user && !slices.Contains(away, f.node) {
			away = append(away, f.node)
		}
	}
	return here, away
}

// ringHere rings the user's connections on this node.
func (h *Hub) ringHere(caller bus.NodeID, p *packet) {
	until := unstamp(p.time)
	if p.node == "" {
		p.node = caller
	}
	here, away := h.callees(p.to)
	from := person{p.from, p.user, p.name}
	for _, s := range here {
		if s.peer == p.from {
			continue
		}
		s.mu.Lock()
		if len(s.rings) < ringsPerPeer && s.ringsFromLocked(from.user) < ringsPerCaller && s.rings[p.call] == nil && s.state != ended {
			if s.rings == nil {
				s.rings = make(map[string]*ring)
			}
			s.rings[p.call] = &ring{from: from, room: p.room, until: until, node: p.node}
			s.pushLocked(&event{kind: evRing, call: p.call, who: from, room: p.room, until: until}, 2*h.limits.QueueBytes)
		}
		s.mu.Unlock()
		s.flush()
	}
	h.toNodes(away, p)
}

// ringsFromLocked is how many calls of one user ring this session.
func (s *session) ringsFromLocked(user string) (n int) {
	for _, r := range s.rings {
		if r.from.user == user {
			n++
		}
	}
	return n
}

// ringOver ends a call's ringing everywhere but at one peer.
func (h *Hub) ringOver(callID string, c *call, reason, except string) {
	h.spread(c.nodes, &packet{kind: pkRingOver, call: callID, to: c.user, reason: reason, peer: except})
}

func (h *Hub) ringOverHere(p *packet) {
	here, away := h.callees(p.to)
	for _, s := range here {
		if s.peer != p.peer {
			s.endRing(p.call, p.reason)
		}
	}
	h.toNodes(away, p)
}

// endRing tells a callee that a call rings no more.
func (s *session) endRing(callID, reason string) {
	s.mu.Lock()
	r := s.rings[callID]
	if r == nil {
		s.mu.Unlock()
		return
	}
	delete(s.rings, callID)
	s.pushLocked(&event{kind: evRingEnded, id: r.id, call: callID, reason: reason}, 2*s.hub.limits.QueueBytes)
	s.mu.Unlock()
	s.flush()
}

// answer is the callee's accept or decline: the caller's session decides who was first.
func (h *Hub) answer(s *session, callID, id, how string) *fault {
	s.mu.Lock()
	r := s.rings[callID]
	if r == nil || r.done {
		s.mu.Unlock()
		return noSuchCall()
	}
	r.done, r.id = true, id
	p := packet{
		kind: pkAnswer, call: callID, to: r.from.peer, reason: how,
		peer: s.peer, user: s.who.user, name: s.who.name, room: r.room,
	}
	node := r.node
	s.mu.Unlock()
	if node == h.self {
		p.node = h.self
		h.answered(&p)
		return nil
	}
	if h.bus.Send(node, p.encode()) != nil {
		h.callerLost(&p)
	}
	return nil
}

func noSuchCall() *fault {
	return &fault{codeNoSuchCall, "call", "there is no such call, or it is over"}
}

// callerLost: the caller's node is gone, and the call with it.
func (h *Hub) callerLost(p *packet) {
	h.mu.RLock()
	s := h.sessions[p.peer]
	h.mu.RUnlock()
	if s != nil {
		s.endRing(p.call, reasonCancelled)
	}
}

// answered brings an answer to the caller.
func (h *Hub) answered(p *packet) {
	h.mu.RLock()
	s, f := h.sessions[p.to], h.moved[p.to]
	h.mu.RUnlock()
	if s == nil {
		if f != nil {
			if p.node == h.self {
				p.node = "" // the receiver sees it
			}
			h.tellNode(f.node, p)
		}
		return
	}
	s.mu.Lock()
	c := s.calls[p.call]
	if c == nil {
		s.mu.Unlock()
		return // over before; the callee has been told, or will be
	}
	delete(s.calls, p.call)
	e := &event{kind: evDeclined, call: p.call, who: p.who(), reason: reasonDeclined}
	if p.reason == reasonAccepted {
		e = &event{kind: evAccepted, call: p.call, who: p.who(), room: c.room}
	}
	s.pushLocked(e, 2*h.limits.QueueBytes)
	s.mu.Unlock()
	s.flush()
	if p.reason != reasonAccepted {
		h.ringOver(p.call, c, reasonDeclined, "")
		return
	}
	won := packet{kind: pkWon, call: p.call, to: p.peer, room: c.room}
	if p.node == h.self {
		h.won(&won)
	} else {
		h.tellNode(p.node, &won)
	}
	h.ringOver(p.call, c, reasonAnswered, p.peer)
}

// reasonAccepted is the answer that is not reasonDeclined; between nodes only.
const reasonAccepted = "accepted"

// won tells the callee who was first.
func (h *Hub) won(p *packet) {
	h.mu.RLock()
	s, f := h.sessions[p.to], h.moved[p.to]
	h.mu.RUnlock()
	if s == nil {
		if f != nil {
			h.tellNode(f.node, p)
		}
		return
	}
	s.mu.Lock()
	id := ""
	if r := s.rings[p.call]; r != nil {
		id = r.id
		delete(s.rings, p.call)
	}
	s.pushLocked(&event{kind: evAccepted, id: id, call: p.call, who: s.who, room: p.room}, 2*h.limits.QueueBytes)
	s.mu.Unlock()
	s.flush()
}

// cancelCall is the caller's change of mind.
func (h *Hub) cancelCall(s *session, callID, id string) *fault {
	s.mu.Lock()
	c := s.calls[callID]
	if c == nil {
		s.mu.Unlock()
		return noSuchCall()
	}
	delete(s.calls, callID)
	s.pushLocked(&event{kind: evRingEnded, id: id, call: callID, reason: reasonCancelled}, 2*h.limits.QueueBytes)
	s.mu.Unlock()
	s.flush()
	h.ringOver(callID, c, reasonCancelled, "")
	return nil
}
