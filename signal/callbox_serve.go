package signal

import (
	"time"

	"github.com/coder/websocket"
)

func (callbox1) heartbeat(l *Limits) heartbeat { return pings(l) }

func (callbox1) roomSize(_ string, l *Limits) int { return l.PeersPerRoom }

func (callbox1) returns() bool { return true }

func (callbox1) last(*event) bool { return false }

// message does what one frame asks for.
func (callbox1) message(c *conn, v verdict, typ websocket.MessageType, b []byte) {
	var m clientMessage
	f := &fault{codeBadJSON, "", "binary frames are not used"}
	if typ == websocket.MessageText {
		m, f = decode(b)
	}
	c.hub.stats.messages[m.kind].Add(1)
	s := c.s.Load()
	if s == nil {
		c.hello(&m, f)
		return
	}
	if v == refuse && m.kind != kindAck { // what makes queues shorter is welcome
		f = &fault{codeRateLimited, "", "over the message rate; not handled"}
		defer time.Sleep(ratePause) // back pressure: the client's own TCP queue fills
	}
	seq := m.seq
	if !m.kind.numbered() {
		seq = 0
	}
	do, ack, gap := s.admit(c, seq, len(b))
	if gap != nil {
		c.answerFault(s, &m, gap)
		return
	}
	if !do {
		return
	}
	defer s.handled()
	if f == nil {
		f = c.do(s, &m)
	}
	if f != nil {
		c.answerFault(s, &m, f)
	}
	if ack > 0 {
		c.control(s, &event{kind: evAck, number: ack})
	}
}

// answerFault tells the client what was wrong, and counts what it should not have sent.
func (c *conn) answerFault(s *session, m *clientMessage, f *fault) {
	c.hub.stats.fault(f.code)
	s.tell(&event{kind: evError, id: m.id, fault: f})
	if f.isFault() && c.meter.fault(time.Now()) {
		c.finish(closeProtocol, "too many faults")
	}
}

// hello handles what comes before there is a session.
func (c *conn) hello(m *clientMessage, f *fault) {
	h := c.hub
	if f == nil && m.kind != kindHello || f != nil && m.kind != kindHello && f.code != codeBadJSON {
		f = &fault{codeNotHello, "type", "the first message is hello"}
	}
	if f != nil {
		h.stats.fault(f.code)
		c.control(nil, &event{kind: evError, id: m.id, fault: f})
		if f.code == codeNotHello || c.meter.fault(time.Now()) {
			c.shutdown(closeProtocol, f.text)
		}
		return
	}
	if err := h.greet(c, m); err != nil {
		c.shutdown(closeTryLater, "try again later")
	}
}

// do carries out one well-formed request of a session.
func (c *conn) do(s *session, m *clientMessage) *fault {
	h := c.hub
	switch m.kind {
	case kindSignal:
		h.signal(s, m.to, m.id, m.data)
	case kindBroadcast:
		return h.broadcast(s, m.room, m.data)
	case kindAck:
		if !s.ack(m.seq) {
			return bad("seq", "seq was never sent")
		}
	case kindPing:
		s.mu.Lock()
		n := s.received
		s.mu.Unlock()
		c.control(s, &event{kind: evPong, id: m.id, number: n})
	case kindJoin:
		if c.id.Room != "" && c.id.Room != m.room {
			return &fault{codeNotAllowed, "room", "the token is for another room"}
		}
		return h.join(s, m.room, m.id)
	case kindLeave:
		return h.leave(s, m.room, m.id)
	case kindICE:
		return c.iceServers(s, m)
	case kindCall:
		if c.id.Room != "" && c.id.Room != m.room {
			return &fault{codeNotAllowed, "room", "the token is for another room"}
		}
		return h.callUser(s, m.user, m.room, m.id)
	case kindAccept:
		return h.answer(s, m.call, m.id, reasonAccepted)
	case kindDecline:
		return h.answer(s, m.call, m.id, reasonDeclined)
	case kindCancel:
		return h.cancelCall(s, m.call, m.id)
	case kindBye:
		h.end(s, reasonLeft, closeNormal, "bye")
	default:
		return &fault{codeBadType, "type", "not for now"}
	}
	return nil
}

func (c *conn) iceServers(s *session, m *clientMessage) *fault {
	if m.room != "" {
		c.hub.mu.RLock()
		r := c.hub.inRoomLocked(s, m.room)
		c.hub.mu.RUnlock()
		if r == nil {
			return &fault{codeNotInRoom, "room", "not in that room"}
		}
	} else if c.id.Room != "" {
		return &fault{codeNotAllowed, "room", "the token is for one room; name it"}
	}
	if c.id.ICE == nil {
		return &fault{codeUnavailable, "", "this server offers no ICE servers"}
	}
	ice, err := c.id.ICE(m.room)
	if err != nil {
		c.hub.log.Warn("no ICE servers", logUser, s.who.user, logError, err)
		return &fault{codeUnavailable, "", "no ICE servers at the moment"}
	}
	s.tell(&event{kind: evICE, id: m.id, room: m.room, ice: &ice})
	return nil
}
