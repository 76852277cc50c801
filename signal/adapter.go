package signal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"callbox/bus"
)

// The protocols of other servers are adapters: their peers are sessions and their rooms are rooms as those of
// callbox.v1 are. A session ends with its connection, because none of their clients could resume it; only a PeerJS id can be
// taken over.

// foreign is what their protocols have in common.
type foreign struct{}

func (foreign) acknowledged() bool { return false }

func (foreign) heartbeat(l *Limits) heartbeat {
	return heartbeat{after: l.PingAfter, until: foreignSilence, frame: "\x89\x00"}
}

func (foreign) roomSize(_ string, l *Limits) int { return l.PeersPerRoom }

func (foreign) returns() bool { return true }

func (foreign) last(*event) bool { return false }

const (
	foreignSilence = time.Minute
	namedTries     = 4 // to claim an id whose former holder is just going
	namedPause     = 100 * time.Millisecond
)

// errTaken: the id is held by somebody else.
var errTaken = errors.New("signal: id is taken")

// first is what a protocol does between the claim of a new session's id and the first delivery to it. What comes for
// the session meanwhile waits. An error ends the session.
type first func(s *session, g bus.Grant) error

// open makes a session for a connection, under a name of the client's choice or of ours, and greets it. While it waits for a
// former holder who may be just going, the name is not occupied: whom it belongs to can come in.
func (h *Hub) open(c *conn, sec secrets, then first) error {
	for try := 1; ; try++ {
		again, err := h.tryOpen(c, sec, then)
		if !again || try == namedTries {
			return err
		}
		if !h.pause(namedPause) {
			return errTryLater
		}
	}
}

// tryOpen is one try. True: another one may find it otherwise.
func (h *Hub) tryOpen(c *conn, sec secrets, then first) (again bool, err error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return false, errTryLater
	}
	if here := h.sessions[sec.peer]; here != nil {
		h.mu.Unlock()
		here.mu.Lock()
		settled := here.state == live || here.state == held
		here.mu.Unlock()
		switch {
		case settled && !bytes.Equal(here.proof, sec.proof):
			return false, errTaken
		case settled && h.attach(c, here, 0, func() *event { return &event{kind: evWelcome} }):
			h.stats.resume(resumedLocal)
			return false, nil
		}
		return true, errTryLater // it is just arriving or ending
	}
	s := h.newSession(c, sec)
	s.state = arriving
	h.sessions[s.peer] = s
	h.mu.Unlock()
	g, err := h.claimNamed(s)
	if err == nil && then != nil {
		err = then(s, g)
	}
	if err != nil {
		h.abandon(s)
		if g.Epoch > 0 {
			h.background(h.farewell(farewell{peer: s.peer, epoch: g.Epoch, release: true}).try)
		}
		return errors.Is(err, errTaken), err
	}
	return false, h.begun(c, s, g)
}

// claimNamed claims the session's id.
func (h *Hub) claimNamed(s *session) (bus.Grant, error) {
	ctx, cancel := h.call()
	defer cancel()
	g, err := h.bus.Claim(ctx, bus.Claim{Peer: s.peer, Proof: s.proof})
	switch {
	case err == nil:
		s.mu.Lock()
		s.epoch, s.sid = g.Epoch, g.Epoch
		s.mu.Unlock()
		return g, nil
	case errors.Is(err, bus.ErrTaken):
		return g, errTaken
	}
	h.log.Warn("no new session, the bus does not answer", logError, err)
	return g, errTryLater
}

// begun lets a new session deliver and greets.
func (h *Hub) begun(c *conn, s *session, g bus.Grant) error {
	h.mu.Lock()
	if h.sessions[s.peer] != s { // taken over by another node meanwhile
		h.mu.Unlock()
		return errTryLater
	}
	h.unforwardLocked(s.peer)
	came := h.arrivedLocked(s.peer)
	in := make(map[string]bool, len(s.rooms))
	for _, r := range s.rooms {
		in[r.name] = true
	}
	s.mu.Lock()
	s.waiting = append(came, s.waiting...)
	s.mu.Unlock()
	h.mu.Unlock()
	s.awake(func(room string) bool { return in[room] })
	if !h.attach(c, s, 0, func() *event { return &event{kind: evWelcome} }) {
		h.end(s, reasonGone, closeTryLater, "try again later")
		return errTryLater
	}
	for _, node := range g.Waiting {
		h.tellNode(node, &packet{kind: pkHere, peer: s.peer})
	}
	return nil
}

// goOn leaves the connection to a reader with a new stack.
func (h *Hub) goOn(c *conn) {
	if !h.spawn(c.run) {
		_ = c.ws.CloseNow()
		h.dismiss(c)
	}
}

// turnAway says a last thing and closes.
func (c *conn) turnAway(text string) {
	c.say(text)
	c.shutdown(closeNormal, "")
}

// say writes a text outside the session's queue.
func (c *conn) say(text string) {
	if c.queueControl(append(frameHeader(make([]byte, 0, 10+len(text)), opText, len(text)), text...)) {
		c.kick()
	}
}

// fuller is a protocol whose clients are told that there are too many of them.
type fuller interface {
	// full answers a request that is not admitted. False: it has not.
	full(h *Hub, w http.ResponseWriter, r *http.Request) bool
}

// pause waits. False: the hub is closing.
func (h *Hub) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-h.ctx.Done():
		return false
	}
}

// takeNamed brings what the former node of a session has queued for it.
func (h *Hub) takeNamed(c *conn, s *session, g bus.Grant) {
	if g.Previous == "" || g.Previous == h.self {
		return
	}
	h.mu.Lock()
	s.arrived = make(chan packet, 64)
	h.arriving[s.peer] = s
	h.mu.Unlock()
	state := h.take(s, g)
	h.mu.Lock()
	delete(h.arriving, s.peer)
	s.arrived = nil
	h.mu.Unlock()
	cargo, err := decodeCargo(state)
	if err != nil || cargo.Protocol != s.proto.name() {
		h.stats.resume(resumedLost)
		return
	}
	s.mu.Lock()
	who, sid, login := s.who, s.sid, s.login
	s.mu.Unlock()
	s.restore(cargo)
	s.mu.Lock()
	s.who, s.sid, s.login = who, sid, login
	s.mu.Unlock()
	h.stats.resume(resumedMoved)
}

// verified sees to it that a revocation while the session began is not missed.
func (h *Hub) verified(s *session, still func() bool) {
	if still != nil && !still() {
		h.end(s, reasonGone, closeAuth, "revoked")
	}
}

// stranger are the secrets of a session whose id this server chooses: in space, ending in a UUID.
func stranger(space string) secrets {
	sec := newSecrets()
	sec.peer = space + uuid()
	sec.token = "" // nobody resumes it
	return sec
}

// uuidOf is what a client knows of a stranger's id.
func uuidOf(peer string) string { return peer[max(0, len(peer)-36):] }

// uuid is a random one (RFC 9562, section 5.4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
