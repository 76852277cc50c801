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
	Drops         map[string]uint64 // by reason: queue, control, stale
	Closed        map[int]uint64    // connections closed by this side, by close code
	Resumed       map[string]uint64 // resumes, by how: local, moved, parked, lost
}

// Reasons of drops.
const (
	dropQueue   = "queue"   // a session's queue was full
	dropControl = "control" // pongs and the like were not read
	dropStale   = "stale"   // came too late to be in order
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

	mu                                     sync.Mutex // a leaf
	undeliverables, errors, drops, resumes map[string]uint64
	closes                                 map[int]uint64
}

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
