package signal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"callbox/bus"
)

// secrets of a session: the token is random, the rest follows from it, so that
// nobody can ask for a peer id of his choice.
type secrets struct {
	token, peer string
	proof       []byte
}

func newSecrets() secrets {
	var b [16]byte
	rand.Read(b[:])
	return secretsOf(b[:])
}

func secretsOf(b []byte) secrets {
	id := sha256.Sum256(append([]byte("callbox peer\x00"), b...))
	proof := sha256.Sum256(append([]byte("callbox proof\x00"), b...))
	return secrets{
		token: base64.RawURLEncoding.EncodeToString(b),
		peer:  base64.RawURLEncoding.EncodeToString(id[:12]),
		proof: proof[:],
	}
}

func secretsFrom(token string) (secrets, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != 16 {
		return secrets{}, false
	}
	return secretsOf(b), true
}

// errTryLater: the bus does not answer, the client should come again.
var errTryLater = errors.New("signal: try again later")

// greet makes or finds the session for a connection that said hello, and attaches it. Owned by
// the connection's reader.
func (h *Hub) greet(c *conn, m *clientMessage) error {
	if m.resume {
		if sec, ok := secretsFrom(m.token); ok {
			if done, err := h.resume(c, m, sec); done || err != nil {
				return err
			}
		} else {
			h.stats.resume(resumedLost)
		}
	}
	return h.begin(c, m, newSecrets(), true)
}

// begin starts a new session.
func (h *Hub) begin(c *conn, m *clientMessage, sec secrets, fresh bool) error {
	s := h.newSession(c, sec)
	if m.name != "" {
		s.who.name = m.name
	}
	ctx, cancel := h.call()
	g, err := h.bus.Claim(ctx, bus.Claim{Peer: sec.peer, Proof: sec.proof})
	cancel()
	if err != nil {
		h.log.Warn("no new session, the bus does not answer", logError, err)
		return errTryLater
	}
	s.epoch, s.sid, s.fresh = g.Epoch, g.Epoch, fresh
	return h.start(c, s)
}

func (h *Hub) newSession(c *conn, sec secrets) *session {
	s := &session{
		hub: h, proto: c.proto, peer: sec.peer, token: sec.token, proof: sec.proof,
		who: person{sec.peer, c.id.User, c.id.displayName()}, login: c.id.Login, id: c.id,
	}
	return s
}

// start registers a new session that has been claimed, and greets.
func (h *Hub) start(c *conn, s *session) error {
	s.push(h.welcome(c, s, false))
	h.mu.Lock()
	if h.closed || len(h.sessions) > 2*h.limits.Connections { // that many are held
		h.mu.Unlock()
		h.abandon(s)
		h.background(h.farewell(farewell{peer: s.peer, epoch: s.epoch, reason: reasonGone, release: true}).try)
		return errTryLater
	}
	delete(h.arriving, s.peer)
	h.unforwardLocked(s.peer)
	h.sessions[s.peer] = s
	h.mu.Unlock()
	s.mu.Lock()
	s.holdLocked(time.Now()) // attach makes it live
	waiting := s.waiting     // was meant for the session that is lost
	s.waiting, s.waitBytes = nil, 0
	s.mu.Unlock()
	for i := range waiting {
		h.refuse(&waiting[i], reasonGone)
	}
	h.enlist(s) // before the welcome: who is welcomed can be called
	if !h.attach(c, s, 0, nil) {
		return errTryLater
	}
	return nil
}

func (h *Hub) welcome(c *conn, s *session, resumed bool) *event {
	e := &event{kind: evWelcome, resumed: resumed}
	if c.id.ICE != nil && c.id.Room == "" {
		if ice, err := c.id.ICE(""); err == nil {
			e.ice = &ice
		} else {
			h.log.Warn("no ICE servers", logUser, c.id.User, logError, err)
		}
	}
	return e
}

// attach joins connection and session; what was attached before is replaced.
func (h *Hub) attach(c *conn, s *session, seq uint64, first func() *event) bool {
	c.mu.Lock()
	if c.writing { // a ping is being written; its writer will go on with the rest
		c.again = true
	}
	mine := !c.writing
	c.writing = true
	c.mu.Unlock()
	if first == nil {
		first = func() *event { return nil }
	}
	old, ok := s.attach(c, seq, first)
	if old != nil {
		old.shutdown(closeReplaced, "resumed on another connection")
	}
	if mine {
		c.write()
	} else {
		c.kick()
	}
	return ok
}

// resume continues a session of this or another node. False: there is none to continue, begin a new
// one.
func (h *Hub) resume(c *conn, m *clientMessage, sec secrets) (bool, error) {
	s := &session{
		hub: h, proto: c.proto, peer: sec.peer, token: sec.token, proof: sec.proof, id: c.id,
		who: person{sec.peer, c.id.User, c.id.displayName()}, login: c.id.Login,
		state: arriving, ready: make(chan struct{}), arrived: make(chan packet, 64),
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return false, errTryLater
	}
	if here := h.sessions[sec.peer]; here != nil {
		h.mu.Unlock()
		return h.resumeHere(c, m, here)
	}
	h.sessions[s.peer], h.arriving[s.peer] = s, s
	h.mu.Unlock()
	defer close(s.ready)

	ctx, cancel := h.call()
	g, err := h.bus.Claim(ctx, bus.Claim{Peer: sec.peer, Proof: sec.proof})
	cancel()
	switch {
	case errors.Is(err, bus.ErrTaken), errors.Is(err, bus.ErrFenced):
		h.abandon(s)
		return false, nil
	case err != nil:
		h.abandon(s)
		return false, errTryLater
	}
	s.mu.Lock()
	s.epoch = g.Epoch
	s.mu.Unlock()

	state, how := g.Parked, resumedParked
	if state == nil && g.Previous != "" && g.Previous != h.self {
		state, how = h.take(s, g), resumedMoved
	}
	if cargo, err := decodeCargo(state); err == nil && cargo.fits(c, m) {
		if h.settleIn(s, cargo) && h.attach(c, s, m.resumeSeq, h.resumed(c, s)) {
			h.stats.resume(how)
			return true, nil
		}
		h.end(s, reasonGone, closeTryLater, "could not be resumed")
		h.stats.resume(resumedLost)
		return false, nil
	} else if err == nil { // somebody else's, or the numbers do not fit: its rooms are left
		h.background(h.farewell(farewell{peer: s.peer, epoch: g.Epoch, rooms: cargo.roomNames(), reason: reasonGone}).try)
	}

	// Nothing to continue, but the peer id is kept: connections between the peers go on.
	h.stats.resume(resumedLost)
	s.mu.Lock()
	s.sid, s.fresh = g.Epoch, false
	if m.name != "" {
		s.who.name = m.name
	}
	s.mu.Unlock()
	return true, h.start(c, s)
}

// fits says whether the state belongs to this client.
func (cargo *sessionCargo) fits(c *conn, m *clientMessage) bool {
	return cargo.Protocol == c.proto.name() && cargo.User == c.id.User && cargo.Login == c.id.Login &&
		cargo.Scope == c.id.Room &&
		m.resumeSeq >= cargo.Base && m.resumeSeq <= cargo.Base+uint64(len(cargo.frames))
}

func (cargo *sessionCargo) roomNames() []string {
	names := make([]string, len(cargo.Rooms))
	for i := range cargo.Rooms {
		names[i] = cargo.Rooms[i].Name
	}
	return names
}

// resumed makes the welcome of a resumed session, when what was received is settled.
func (h *Hub) resumed(c *conn, s *session) func() *event {
	e := h.welcome(c, s, true)
	return func() *event {
		e.number = s.received
		return e
	}
}

// resumeHere continues a session that this node holds.
func (h *Hub) resumeHere(c *conn, m *clientMessage, s *session) (bool, error) {
	if s.ready != nil { // another connection is just fetching it
		select {
		case <-s.ready:
		case <-h.ctx.Done():
			return false, errTryLater
		}
	}
	id := s.identity()
	if id.User == c.id.User && id.Login == c.id.Login && id.Room == c.id.Room && s.proto == c.proto &&
		h.attach(c, s, m.resumeSeq, h.resumed(c, s)) {
		h.stats.resume(resumedLocal)
		return true, nil
	}
	h.stats.resume(resumedLost)
	h.end(s, reasonGone, closeReplaced, "begun anew on another connection")
	return false, nil
}

// abandon forgets a session that was not granted, or could not begin.
func (h *Hub) abandon(s *session) {
	h.mu.Lock()
	if h.sessions[s.peer] == s {
		h.removeLocked(s)
	}
	s.mu.Lock()
	s.endLocked()
	waiting := s.waiting
	s.waiting, s.waitBytes = nil, 0
	s.mu.Unlock()
	h.mu.Unlock()
	for i := range waiting {
		if named(s.peer) { // the name may be held by another, elsewhere
			h.elsewhere(&waiting[i])
			continue
		}
		h.refuse(&waiting[i], reasonGone)
	}
}
