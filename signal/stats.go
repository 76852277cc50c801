package signal

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Stats are a hub's gauges and its counters since New.
type Stats struct {
	Connections int // open WebSocket connections
	Rooms       int // rooms with members on this node
	Sessions    int // sessions on this node, held ones included
	Held        int // sessions without a connection, waiting to be resumed
	QueuedBytes int // in the queues of all sessions

	Accepted      uint64            // connections since New
	Messages      map[string]uint64 // from clients, by kind
	Local         uint64            // signals and broadcasts delivered to peers of this node by peers of this node
	Remote        uint64            // the same, sent to other nodes
	Received      uint64            // the same, received from other nodes and delivered
	Undeliverable map[string]uint64 // signals that came back, by reason: gone, busy, not-in-room
	Errors        map[string]uint64 // told to clients, by code
	Drops         map[string]uint64 // by reason: queue, control, stale, waiting
	Closed        map[int]uint64    // connections closed by this side, by close code
	Resumed       map[string]uint64 // resumes, by how: local, moved, parked, lost

	Protocols map[string]ProtocolStats // by name: callbox.v1, peerjs, y-webrtc, ayame, matchbox
}

// ProtocolStats are the figures of one wire protocol.
type ProtocolStats struct {
	Connections int               // open now
	Accepted    uint64            // connections since New
	Messages    uint64            // from clients
	Ignored     uint64            // of these: not understood, and passed over without an answer
	Refused     map[string]uint64 // clients turned away and messages not handled, by reason: token, taken, full, rate
}

// Reasons of refusals in protocols.
const (
	refusedToken = "token" // no token, a bad one, or one for another room
	refusedTaken = "taken" // the id is held by somebody else
	refusedFull  = "full"  // the room, or the node, has as many as it may
	refusedRate  = "rate"  // a message over the connection's rate
)

// Protocols, as an index.
const (
	protoCallbox = iota
	protoPeerJS
	protoYWebRTC
	protoAyame
	protoMatchbox
	protocols // how many
)

func protocolName(i int) string {
	return [protocols]string{Subprotocol, "peerjs", "y-webrtc", "ayame", "matchbox"}[i]
}

// protocolCounters are those of one protocol.
type protocolCounters struct {
	accepted, messages, ignored atomic.Uint64
	token, taken, full, rate    atomic.Uint64
}

func (p *protocolCounters) refuse(reason string) {
	switch reason {
	case refusedToken:
		p.token.Add(1)
	case refusedTaken:
		p.taken.Add(1)
	case refusedFull:
		p.full.Add(1)
	case refusedRate:
		p.rate.Add(1)
	}
}

func (p *protocolCounters) stats() ProtocolStats {
	return ProtocolStats{
		Accepted: p.accepted.Load(), Messages: p.messages.Load(), Ignored: p.ignored.Load(),
		Refused: map[string]uint64{
			refusedToken: p.token.Load(), refusedTaken: p.taken.Load(), refusedFull: p.full.Load(), refusedRate: p.rate.Load(),
		},
	}
}

// Reasons of drops.
const (
	dropQueue   = "queue"   // a session's queue was full
	dropControl = "control" // pongs and the like were not read
	dropStale   = "stale"   // came too late to be in order
	dropWaiting = "waiting" // too much waits for peers that are not there
)

// How a resume went.
const (
	resumedLocal  = "local"
	resumedMoved  = "moved"
	resumedParked = "parked"
	resumedLost   = "lost"
)

type counters struct {
	accepted, local, remote, received atomic.Uint64
	messages                          [kinds]atomic.Uint64
	protocols                         [protocols]protocolCounters

	mu                                     sync.Mutex // a leaf
	undeliverables, errors, drops, resumes map[string]uint64
	closes                                 map[int]uint64
}

// of are the counters of one protocol.
func (c *counters) of(p protocol) *protocolCounters { return &c.protocols[p.index()] }

func (c *counters) drop(reason string)          { c.count(&c.drops, reason) }
func (c *counters) undeliverable(reason string) { c.count(&c.undeliverables, reason) }
func (c *counters) fault(code string)           { c.count(&c.errors, code) }
func (c *counters) resume(how string)           { c.count(&c.resumes, how) }

// count is for what happens rarely; keys are from fixed sets.
func (c *counters) count(m *map[string]uint64, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *m == nil {
		*m = make(map[string]uint64)
	}
	(*m)[key]++
}

func (c *counters) closed(code closeCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closes == nil {
		c.closes = make(map[int]uint64)
	}
	c.closes[int(code)]++
}

// Connections is how many connections are open: what Stats says too, without the walk over all sessions.
func (h *Hub) Connections() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.conns)
}

// Stats returns the present figures.
func (h *Hub) Stats() Stats {
	c := &h.stats
	s := Stats{
		Accepted: c.accepted.Load(),
		Local:    c.local.Load(),
		Remote:   c.remote.Load(),
		Received: c.received.Load(),
		Messages: make(map[string]uint64, kinds),
	}
	for k := kindHello; k < kinds; k++ {
		s.Messages[k.String()] = c.messages[k].Load()
	}
	c.mu.Lock()
	s.Undeliverable = maps.Clone(c.undeliverables)
	s.Errors = maps.Clone(c.errors)
	s.Drops = maps.Clone(c.drops)
	s.Resumed = maps.Clone(c.resumes)
	s.Closed = maps.Clone(c.closes)
	c.mu.Unlock()

	h.mu.RLock()
	defer h.mu.RUnlock()
	s.Connections = len(h.conns)
	var open [protocols]int
	for conn := range h.conns {
		open[conn.proto.index()]++
	}
	s.Protocols = make(map[string]ProtocolStats, protocols)
	for i := range protocols {
		p := c.protocols[i].stats()
		p.Connections = open[i]
		s.Protocols[protocolName(i)] = p
	}
	s.Rooms = len(h.rooms)
	s.Sessions = len(h.sessions)
	for _, sess := range h.sessions {
		sess.mu.Lock()
		if sess.state == held {
			s.Held++
		}
		s.QueuedBytes += sess.bytes
		sess.mu.Unlock()
	}
	return s
}
