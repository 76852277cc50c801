package signal

import (
	"context"
	"errors"
	"time"

	"callbox/bus"
)

// signal sends data to one peer that shares a room with s. What cannot be delivered
// comes back as undeliverable, now or later.
func (h *Hub) signal(s *session, to, id string, data []byte) {
	h.mu.RLock()
	var m *member
	for _, r := range s.rooms {
		if m = r.members[to]; m != nil {
			break
		}
	}
	var node bus.NodeID
	var target *session
	if m != nil {
		node, target = m.node, m.s
	}
	h.mu.RUnlock()
	if m == nil {
		h.stats.undeliverable("not-in-room")
		s.tell(&event{kind: evUndeliverable, id: id, to: to, reason: "not-in-room"})
		return
	}
	p := packet{kind: pkSignal, from: s.peer, to: to, id: id, sid: s.sid, data: data}
	p.n, p.prev = s.next(to)
	if target != nil {
		p.node = h.self
		h.hand(target, &p)
		return
	}
	if node == h.self { // leaving, or moved this very moment
		h.arrive(&p)
		return
	}
	h.dispatch(node, p)
}

// hand gives a signal to a session of this node.
func (h *Hub) hand(target *session, p *packet) {
	switch target.deliver(p, time.Now()) {
	case accepted:
		if p.node == h.self {
			h.stats.local.Add(1)
		} else {
			h.stats.received.Add(1)
		}
	case full:
		h.refuse(p, reasonBusy)
	case absent: // it moved this very moment
		q := *p
		q.to = target.peer
		if q.kind == pkCast {
			q.kind = pkCastTo
		}
		h.elsewhere(&q)
		return
	case stale:
		h.stats.drop(dropStale)
		if p.kind == pkSignal {
			h.refuse(p, reasonGone)
		}
	}
	target.flush()
}

// arrive looks for the session on this node.
func (h *Hub) arrive(p *packet) {
	if p.node == "" {
		p.node = h.self
	}
	h.mu.RLock()
	target := h.sessions[p.to]
	h.mu.RUnlock()
	if target == nil {
		h.elsewhere(p)
		return
	}
	h.hand(target, p)
}

// elsewhere forwards what came for a peer that has moved away from here.
func (h *Hub) elsewhere(p *packet) {
	if named(p.to) && p.kind == pkSignal {
		h.await(p, "")
		return
	}
	h.mu.RLock()
	f := h.moved[p.to]
	h.mu.RUnlock()
	switch {
	case f != nil:
		h.dispatch(f.node, *p)
	case p.kind == pkSignal:
		h.refuse(p, reasonGone)
	}
}

// dispatch sends a signal or broadcast for one peer to the node that is believed to hold it.
func (h *Hub) dispatch(node bus.NodeID, p packet) {
	if p.node == h.self {
		p.node = "" // the receiver sees where it comes from
	}
	err := h.bus.Send(node, p.encode())
	switch {
	case err == nil:
		h.stats.remote.Add(1)
	case errors.Is(err, bus.ErrNodeGone):
		p.data = append([]byte(nil), p.data...)
		h.seek(node, p)
	default:
		h.refuse(&p, reasonBusy)
	}
}

// lookup collects what waits for the directory's answer about one peer.
type lookup struct {
	packets []packet
}

// seek asks the directory where a peer is that is not on the node believed, once for all
// messages to it.
func (h *Hub) seek(believed bus.NodeID, p packet) {
	if named(p.to) {
		h.forgetPlace(p.to, believed)
		h.await(&p, believed)
		return
	}
	h.mu.Lock()
	l := h.lookups[p.to]
	first := l == nil
	if first {
		l = &lookup{}
		h.lookups[p.to] = l
	}
	if len(l.packets) >= maxRerouted {
		h.mu.Unlock()
		h.refuse(&p, reasonBusy)
		return
	}
	l.packets = append(l.packets, p)
	h.mu.Unlock()
	if !first {
		return
	}
	to := p.to
	h.background(func(ctx context.Context) {
		node, _, err := h.bus.Locate(ctx, to, 0)
		h.mu.Lock()
		delete(h.lookups, to)
		h.mu.Unlock()
		reason := reasonGone
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			reason = reasonBusy // the directory does not answer; the peer may be well
		}
		for i := range l.packets {
			p := &l.packets[i]
			switch {
			case err == nil && node == h.self:
				h.arrive(p)
			case err == nil && node != believed && h.send(node, p):
			case p.kind == pkSignal:
				h.refuse(p, reason)
			}
		}
	})
}

// send is one try.
func (h *Hub) send(node bus.NodeID, p *packet) bool {
	if h.bus.Send(node, p.encode()) != nil {
		return false
	}
	h.stats.remote.Add(1)
	return true
}

// refuse tells the sender of a signal that it was not delivered.
func (h *Hub) refuse(p *packet, reason string) {
	if p.kind != pkSignal || p.reason == reasonQuiet {
		return
	}
	if p.node != "" && p.node != h.self {
		h.tellNode(p.node, &packet{
			kind: pkUndeliverable, to: p.from, peer: p.to, id: p.id, reason: reason,
			sid: p.sid, n: p.n, prev: p.prev,
		})
		return
	}
	h.undelivered(&packet{to: p.from, peer: p.to, id: p.id, reason: reason, sid: p.sid, n: p.n, prev: p.prev})
}

// refuseLater is refuse for a caller that holds a session's lock.
func (h *Hub) refuseLater(p *packet, reason string) {
	q := *p
	h.spawn(func() { h.refuse(&q, reason) })
}

// undelivered takes the news to the sender, p.to, wherever it is now.
func (h *Hub) undelivered(p *packet) {
	if named(p.peer) {
		h.forgetPlace(p.peer, "")
	}
	h.mu.RLock()
	s, f := h.sessions[p.to], h.moved[p.to]
	h.mu.RUnlock()
	switch {
	case s != nil && s.number() == p.sid:
		h.stats.undeliverable(p.reason)
		s.unsent(p.peer, p.n, p.prev)
		s.tell(&event{kind: evUndeliverable, id: p.id, to: p.peer, reason: p.reason})
	case f != nil:
		p.kind = pkUndeliverable
		h.tellNode(f.node, p)
	}
}

// broadcast sends data to the other members of a room: once to each node.
func (h *Hub) broadcast(s *session, name string, data []byte) *fault {
	h.mu.RLock()
	r := h.inRoomLocked(s, name)
	if r == nil {
		h.mu.RUnlock()
		return &fault{codeNotInRoom, "room", "not in that room"}
	}
	targets := r.localLocked(nil, s.peer)
	nodes := r.nodesLocked(h.self)
	var away []string
	for peer := range h.movedFrom[name] {
		if m := r.members[peer]; m != nil && m.s == nil && m.node == h.self { // the directory has not heard of it yet
			away = append(away, peer)
		}
	}
	missing := r.missingLocked(time.Now().Add(h.limits.ResumeWindow - missingFor))
	h.mu.RUnlock()
	p := packet{kind: pkCast, from: s.peer, room: name, sid: s.sid, data: data}
	p.n, p.prev = s.next(castKey(name, ""))
	h.toNodes(nodes, &p)
	h.stats.remote.Add(uint64(len(nodes)))
	p.node = h.self
	for peer, node := range missing {
		q := p
		q.kind, q.to, q.data = pkCastTo, peer, append([]byte(nil), data...)
		h.seek(node, q)
	}
	h.castAfter(away, &p)
	for _, t := range targets {
		h.hand(t, &p)
	}
	return nil
}

// missingFor is how long after the end of a node its members are looked for elsewhere.
const missingFor = 5 * time.Second

// missingLocked are the members whose node ended a moment ago (they are given up after since):
// they may be on another already, which has not said so yet.
func (r *room) missingLocked(since time.Time) map[string]bus.NodeID {
	var missing map[string]bus.NodeID
	for peer, m := range r.members {
		if !m.there() && m.goneAt.After(since) {
			if missing == nil {
				missing = make(map[string]bus.NodeID)
			}
			missing[peer] = m.node
		}
	}
	return missing
}

// localLocked are the members on this node, except one.
func (r *room) localLocked(to []*session, except string) []*session {
	for peer, m := range r.members {
		if m.s != nil && peer != except {
			to = append(to, m.s)
		}
	}
	return to
}

// cast is a broadcast that came from another node.
func (h *Hub) cast(p *packet) {
	h.mu.RLock()
	var targets []*session
	if r := h.rooms[p.room]; r != nil {
		targets = r.localLocked(targets, p.from)
	}
	var away []string
	for peer := range h.movedFrom[p.room] {
		if peer != p.from {
			away = append(away, peer)
		}
	}
	// Which rooms an arriving session is in is not known yet; it looks later.
	for peer, s := range h.arriving {
		if peer != p.from {
			targets = append(targets, s)
		}
	}
	h.mu.RUnlock()
	h.castAfter(away, p)
	for _, t := range targets {
		h.hand(t, p)
	}
}

// castAfter sends a broadcast after peers that have moved away from here.
func (h *Hub) castAfter(away []string, p *packet) {
	for _, peer := range away {
		q := *p
		q.kind, q.to = pkCastTo, peer
		h.elsewhere(&q)
	}
}

// lostCast: a broadcast did not reach a node. Members that were there may have moved to
// others; the numbers keep those who have it already from getting it twice.
func (h *Hub) lostCast(to bus.NodeID, p *packet) {
	at := make(map[string]bus.NodeID)
	h.mu.RLock()
	r := h.rooms[p.room]
	if r != nil {
		for peer, m := range r.members {
			at[peer] = m.node
		}
	}
	h.mu.RUnlock()
	if r != nil {
		h.recast(to, p, at)
		return
	}
	q := *p
	h.background(func(ctx context.Context) { // the sender has moved from here meanwhile
		now, err := h.bus.Room(ctx, q.room)
		if err != nil {
			h.log.Debug("broadcast lost", logRoom, q.room, logError, err)
			return
		}
		for i := range now.Members {
			at[now.Members[i].Peer] = now.Members[i].Node
		}
		h.recast(to, &q, at)
	})
}

// recast sends a broadcast to peers one by one.
func (h *Hub) recast(lost bus.NodeID, p *packet, at map[string]bus.NodeID) {
	for peer, node := range at {
		if peer == p.from {
			continue
		}
		q := *p
		q.kind, q.to = pkCastTo, peer
		switch node {
		case lost:
			h.seek(lost, q)
		case h.self:
			h.arrive(&q)
		default:
			h.dispatch(node, q)
		}
	}
}

// toNodes sends one packet to several nodes.
func (h *Hub) toNodes(nodes []bus.NodeID, p *packet) {
	if len(nodes) == 0 {
		return
	}
	b := p.encode()
	for _, n := range nodes {
		if err := h.bus.Send(n, b); err != nil {
			if p.kind == pkCast && errors.Is(err, bus.ErrNodeGone) {
				q := *p
				q.data = append([]byte(nil), p.data...)
				h.lostCast(n, &q)
				continue
			}
			h.log.Debug("not sent", logNode, n, logError, err)
		}
	}
}

func (h *Hub) tellNode(node bus.NodeID, p *packet) {
	if err := h.bus.Send(node, p.encode()); err != nil {
		h.log.Debug("not sent", logNode, node, logError, err)
	}
}
