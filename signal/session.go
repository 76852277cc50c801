package signal

import (
	"sync"
	"time"

	"callbox/bus"
)

// session is one peer: what outlives its connection.
type session struct {
	hub   *Hub
	proto protocol
	peer  string
	token string // what the client shows to resume
	proof []byte // what this node shows the directory
	who   person
	login bool
	sid   uint64        // epoch of the first claim: names the session as a sender, also after moves
	ready chan struct{} // closed when the session may be used; until then it is arriving from another node

	rooms []*room // owned by Hub.mu

	mu    sync.Mutex
	id    Identity
	epoch uint64
	state sessionState
	conn  *conn
	until time.Time // held: when it ends

	// Out queue: frames base+1, base+2, ... that are not acknowledged.
	base    uint64
	queue   [][]byte
	bytes   int
	sent    uint64 // highest number given to conn
	overrun bool   // a signal did not fit: the connection is to be closed
	broken  bool   // something else did not fit: the session is to end
	behind  uint64 // what was queued when conn came back: until that is acknowledged, or catchUp has passed, no signal closes conn
	came    time.Time
	last    bool // the last thing to be said is queued: the session is to end

	received  uint64 // highest number of the client's own
	handling  int    // messages of the client that are being handled now
	after     func() // runs when none is; set: no more are admitted
	unacked   int    // messages of the client since the last ack
	unackedBy int    // their bytes

	counter uint64            // numbers what this session sends to other peers
	chains  map[string]uint64 // the number last sent: by peer id, or "\x00" and room
	unused  map[string][]gap  // numbers below it that came back

	fresh   bool // nothing was ever sent to this peer id before this session
	sources map[string]*source
	pending int // messages in sources that wait for another

	pendingBytes int // of their data

	unverified bool     // the link was down: what comes from other nodes waits for the claim
	verifying  bool     // somebody renews the claim
	waiting    []packet // what came while arriving or unverified
	waitBytes  int
	arrived    chan packet // while arriving: parts of the state, or the news that there is none

	calls map[string]*call // going out
	rings map[string]*ring // coming in
}

type sessionState uint8

const (
	live     sessionState = iota // has a connection
	held                         // had one, may come back
	arriving                     // its state is on the way from another node
	ended                        // is over, or has moved to another node
)

// outcome of handing something to a session.
type outcome uint8

const (
	accepted outcome = iota
	full             // the queue is full
	absent           // the session is over or elsewhere
	stale            // came too late to be delivered in order, or twice
)

const frameOverhead = 48 // counted for each queued frame beside its bytes

// push queues an event that must not be lost; flush has to follow, without locks.
func (s *session) push(e *event) {
	s.mu.Lock()
	s.pushLocked(e, 2*s.hub.limits.QueueBytes)
	s.mu.Unlock()
}

// tell is push and flush.
func (s *session) tell(e *event) {
	s.push(e)
	s.flush()
}

func (s *session) pushLocked(e *event, limit int) outcome {
	if s.state == ended {
		return absent
	}
	size := 128 + len(e.data)
	b := s.proto.append(make([]byte, 0, size), s, s.base+uint64(len(s.queue))+1, e)
	if len(b) == 0 {
		return accepted
	}
	s.last = s.last || s.proto.last(e)
	size = s.bytes + len(b) + frameOverhead
	if size > s.hub.limits.QueueBytes && !(e.kind == evSignal && s.catchingUpLocked(time.Now())) {
		s.overrun = true
	}
	if size > limit || s.hub.crowded() && (e.kind == evSignal || e.kind == evBroadcast && s.bytes > backlog) {
		// A signal comes back to its sender; without anything else the
		// client's picture would be wrong.
		s.broken = s.broken || e.kind != evSignal
		s.hub.stats.drop(dropQueue)
		return full
	}
	s.queue = append(s.queue, b)
	s.countLocked(len(b) + frameOverhead)
	return accepted
}

// backlog is what a session may have queued though the node's queues are full together.
const backlog = 64 << 10

// crowded says whether all queues together hold more than they may.
func (h *Hub) crowded() bool { return h.queued.Load() > int64(h.limits.QueueTotal) }

// countLocked keeps the sums of queued bytes.
func (s *session) countLocked(n int) {
	if s.state == ended {
		return
	}
	s.bytes += n
	s.hub.queued.Add(int64(n))
}

// endLocked: the session is over, or over here.
func (s *session) endLocked() {
	s.countLocked(-s.bytes)
	s.state = ended
}

// flush writes what is queued, and acts on a queue that ran over.
func (s *session) flush() {
	s.mu.Lock()
	c := s.conn
	over, broken := s.overrun, s.broken && s.state != ended
	last := s.last && s.state != ended
	s.overrun = false
	if over && !s.proto.acknowledged() {
		broken = true // nobody would resume it
	}
	if over && c != nil && !broken {
		s.holdLocked(time.Now())
	}
	s.mu.Unlock()
	if broken {
		s.hub.end(s, reasonGone, closeSlow, "slow reader")
		return
	}
	if last {
		s.hub.end(s, reasonLeft, closeNormal, "bye")
		return
	}
	if c == nil {
		return
	}
	if over {
		c.shutdown(closeSlow, "slow reader")
		return
	}
	c.kick()
}

// gather appends frames for c to b, for as long as b is not too long.
func (s *session) gather(c *conn, b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return b
	}
	next := s.base + uint64(len(s.queue))
	for s.sent < next && len(b) < writeChunk {
		f := s.queue[s.sent-s.base]
		b = append(frameHeader(b, opText, len(f)), f...)
		s.sent++
	}
	if !s.proto.acknowledged() {
		s.dropLocked(s.sent)
	}
	return b
}

// ack forgets what the client has handled. False: it cannot have.
func (s *session) ack(seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq > s.sent {
		return false
	}
	s.dropLocked(seq)
	return true
}

func (s *session) dropLocked(seq uint64) {
	if seq <= s.base {
		return
	}
	n := int(seq - s.base)
	for _, f := range s.queue[:n] {
		s.countLocked(-len(f) - frameOverhead)
	}
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	s.base = seq
	if rest == 0 && cap(s.queue) > 16 {
		s.queue = nil
	}
}

// admit judges a message from connection c: once, in order if numbered, and only from
// the connection that has the session now. What it admits has to be handled and then
// reported to handled.
func (s *session) admit(c *conn, seq uint64, size int) (do bool, ack uint64, f *fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c || s.after != nil || s.state != live {
		return false, 0, nil
	}
	if seq == 0 {
		s.handling++
		return true, 0, nil
	}
	if seq <= s.received {
		return false, 0, nil
	}
	if seq != s.received+1 {
		return false, 0, bad("seq", "seq leaves a gap")
	}
	s.received = seq
	s.unacked++
	s.unackedBy += size
	if s.unacked >= 16 || s.unackedBy >= 64<<10 {
		s.unacked, s.unackedBy = 0, 0
		ack = seq
	}
	s.handling++
	return true, ack, nil
}

// handled ends what admit began.
func (s *session) handled() {
	s.mu.Lock()
	s.handling--
	var f func()
	if s.handling == 0 {
		f, s.after = s.after, nil
	}
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

// attach gives the session a connection. seq is the last number the client
// has handled; what is above it is sent again, after first. The caller has set c.writing and
// goes on to c.write. False: the session cannot go on from there.
func (s *session) attach(c *conn, seq uint64, first func() *event) (old *conn, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live && s.state != held || s.broken {
		return nil, false
	}
	if !s.proto.acknowledged() {
		seq = s.base // what was written is taken to have arrived
	}
	if seq < s.base || seq > s.base+uint64(len(s.queue)) {
		return nil, false
	}
	s.dropLocked(seq)
	old = s.conn
	s.conn, s.sent, s.state = c, s.base, live
	s.behind, s.came = s.base, time.Now()
	if seq > 0 { // it comes back
		s.behind += uint64(len(s.queue))
	}
	s.overrun = false
	s.id = c.id
	if e := first(); e != nil {
		if b := s.proto.append(nil, s, 0, e); len(b) > 0 {
			c.mu.Lock()
			c.ctl = append(frameHeader(c.ctl, opText, len(b)), b...)
			c.mu.Unlock()
		}
	}
	c.s.Store(s)
	return old, true
}

// catchUp is how long who comes back has for what has been waiting.
const catchUp = 10 * time.Second

// catchingUpLocked: the client has not handled yet what it came back to. That may be as much as the queue holds, so the next signal
// would close the connection again before anything of it was read.
func (s *session) catchingUpLocked(now time.Time) bool {
	return s.base < s.behind && now.Sub(s.came) < catchUp
}

// detach is called when c has ended.
func (s *session) detach(c *conn, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return false
	}
	s.holdLocked(now)
	return true
}

func (s *session) holdLocked(now time.Time) {
	s.conn = nil
	s.state = held
	s.until = now.Add(s.hub.limits.ResumeWindow)
}

// member is how the bus knows this peer.
func (s *session) member() bus.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bus.Member{Peer: s.peer, Node: s.hub.self, Epoch: s.epoch, Info: packInfo(s.who)}
}

// number is the session's as a sender.
func (s *session) number() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sid
}

func (s *session) identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// packInfo is the Info of a member: neither part has control characters.
func packInfo(p person) []byte { return []byte(p.user + "\x00" + p.name) }

func unpackInfo(peer string, info []byte) person {
	for i, c := range info {
		if c == 0 {
			return person{peer, string(info[:i]), string(info[i+1:])}
		}
	}
	return person{peer, string(info), string(info)}
}
