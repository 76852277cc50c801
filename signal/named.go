package signal

import "callbox/bus"

// sendNamed sends a ready frame to a peer by its name, wherever it is. Who sends it needs no room in common with it.
func (h *Hub) sendNamed(c *conn, s *session, to, frame []byte, quiet bool) {
	h.mu.RLock()
	target := h.sessions[string(to)]
	var node bus.NodeID
	if target == nil && h.waiting[string(to)] == nil {
		node = h.places[string(to)]
	}
	h.mu.RUnlock()
	if target != nil && target.post(frame) {
		h.stats.local.Add(1)
		c.later(target)
		return
	}
	p := packet{kind: pkSignal, from: s.peer, to: string(to), sid: s.sid, version: s.count(), data: frame}
	if quiet {
		p.reason = reasonQuiet
	}
	switch {
	case target != nil:
		p.node = h.self
		h.hand(target, &p)
	case node != "":
		h.dispatch(node, p)
	default:
		h.await(&p, "")
	}
}

// post queues a ready frame for a peer that is simply there; flush has to follow. False: it is not, or its queue is full.
func (s *session) post(frame []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live {
		return false
	}
	return s.pushLocked(&event{kind: evSignal, data: frame}, s.hub.limits.QueueBytes) == accepted
}

// sendTo sends a ready frame to a peer that is known to be on a node. Nobody is told when it does not arrive.
func (h *Hub) sendTo(c *conn, s *session, to string, node bus.NodeID, frame []byte) {
	h.mu.RLock()
	target := h.sessions[to]
	h.mu.RUnlock()
	if target != nil && target.post(frame) {
		h.stats.local.Add(1)
		c.later(target)
		return
	}
	p := packet{kind: pkSignal, from: s.peer, to: to, sid: s.sid, reason: reasonQuiet, data: frame}
	switch {
	case target != nil:
		p.node = h.self
		h.hand(target, &p)
	case node != h.self:
		h.dispatch(node, p)
	}
}
