package signal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"callbox/bus"
)

// sessionHead is the part of a session's state that is not frames or packets,
// when it goes from node to node. A later release may add fields.
type sessionHead struct {
	Protocol string
	User     string
	Name     string
	Login    bool
	Scope    string // Identity.Room
	SID      uint64
	Base     uint64
	Received uint64
	Counter  uint64
	Chains   map[string]uint64
	Fresh    bool
	Sources  map[string]sourceHead
	Rooms    []roomHead
	Calls    map[string]callHead
	Rings    map[string]ringHead
	Frames   int // that follow
	Packets  int // that follow these: received, but not yet in order
}

type sourceHead struct{ SID, Last uint64 }

// roomHead is what the client has been told of a room.
type roomHead struct {
	Name    string
	Version uint64
	Members []memberHead
}

type memberHead struct {
	Peer, User, Name string
	Node             bus.NodeID
}

type callHead struct {
	User, Room string
	Until      time.Time
	Nodes      []bus.NodeID
}

type ringHead struct {
	Peer, User, Name string
	Room             string
	Until            time.Time
	Node             bus.NodeID
}

// sessionCargo is a whole session on the way.
type sessionCargo struct {
	sessionHead
	frames  [][]byte
	packets [][]byte
}

var errState = errors.New("signal: malformed session state")

// cargoLocked takes the session's state; rooms are the caller's to add.
func (s *session) cargoLocked() sessionCargo {
	c := sessionCargo{
		sessionHead: sessionHead{
			Protocol: s.proto.name(), User: s.who.user, Name: s.who.name, Login: s.login, Scope: s.id.Room,
			SID: s.sid, Base: s.base, Received: s.received, Counter: s.counter, Chains: s.chains, Fresh: s.fresh,
			Sources: make(map[string]sourceHead, len(s.sources)),
			Calls:   make(map[string]callHead, len(s.calls)),
			Rings:   make(map[string]ringHead, len(s.rings)),
		},
		frames: s.queue,
	}
	for k, src := range s.sources {
		c.Sources[k] = sourceHead{src.sid, src.last}
		for i := range src.pending {
			c.packets = append(c.packets, src.pending[i].p.encode())
		}
	}
	for i := range s.waiting {
		c.packets = append(c.packets, s.waiting[i].encode())
	}
	for id, v := range s.calls {
		c.Calls[id] = callHead{v.user, v.room, v.until, v.nodes}
	}
	for id, v := range s.rings {
		c.Rings[id] = ringHead{v.from.peer, v.from.user, v.from.name, v.room, v.until, v.node}
	}
	return c
}

// encode: length of the head and head as JSON; then frames and packets, each after its length.
func (c *sessionCargo) encode() ([]byte, error) {
	c.Frames, c.Packets = len(c.frames), len(c.packets)
	head, err := json.Marshal(&c.sessionHead)
	if err != nil {
		return nil, err
	}
	b := binary.AppendUvarint(nil, uint64(len(head)))
	b = append(b, head...)
	for _, f := range c.frames {
		b = append(binary.AppendUvarint(b, uint64(len(f))), f...)
	}
	for _, p := range c.packets {
		b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
	}
	return b, nil
}

func decodeCargo(b []byte) (*sessionCargo, error) {
	part := func() []byte {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return nil
		}
		p := b[k : k+int(n) : k+int(n)]
		b = b[k+int(n):]
		return p
	}
	c := &sessionCargo{}
	head := part()
	if head == nil || json.Unmarshal(head, &c.sessionHead) != nil || c.Frames < 0 || c.Packets < 0 {
		return nil, errState
	}
	for range c.Frames {
		f := part()
		if f == nil {
			return nil, errState
		}
		c.frames = append(c.frames, f)
	}
	for range c.Packets {
		p := part()
		if p == nil {
			return nil, errState
		}
		c.packets = append(c.packets, p)
	}
	return c, nil
}

// restore fills an arriving session. Its rooms are entered by the caller.
func (s *session) restore(c *sessionCargo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who = person{s.peer, c.User, c.Name}
	s.login = c.Login
	s.sid, s.base, s.received, s.counter, s.chains, s.fresh = c.SID, c.Base, c.Received, c.Counter, c.Chains, c.Fresh
	for _, f := range c.frames {
		s.queue = append(s.queue, f)
		s.countLocked(len(f) + frameOverhead)
	}
	if len(c.Sources) > 0 {
		s.sources = make(map[string]*source, len(c.Sources))
	}
	for k, v := range c.Sources {
		s.sources[k] = &source{sid: v.SID, last: v.Last}
	}
	// What arrived there comes before what has arrived here meanwhile.
	var first []packet
	for _, raw := range c.packets {
		if p, err := decodePacket(raw); err == nil {
			first = append(first, p)
			s.waitBytes += len(p.data) + frameOverhead
		}
	}
	s.waiting = append(first, s.waiting...)
	for id, v := range c.Calls {
		if s.calls == nil {
			s.calls = make(map[string]*call)
		}
		s.calls[id] = &call{user: v.User, room: v.Room, until: v.Until, nodes: v.Nodes}
	}
	for id, v := range c.Rings {
		if s.rings == nil {
			s.rings = make(map[string]*ring)
		}
		s.rings[id] = &ring{from: person{v.Peer, v.User, v.Name}, room: v.Room, until: v.Until, node: v.Node}
	}
}

// awake lets an arriving or unverified session deliver, beginning with what
// has waited. flush has to follow.
func (s *session) awake(inRoom func(name string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == arriving {
		s.holdLocked(time.Now())
	}
	s.unverified = false
	waiting := s.waiting
	s.waiting, s.waitBytes = nil, 0
	for i := range waiting {
		p := &waiting[i]
		if p.kind != pkSignal && !inRoom(p.room) {
			continue
		}
		switch s.orderLocked(p, time.Now()) {
		case full:
			s.hub.refuseLater(p, reasonBusy)
		case stale:
			s.hub.stats.drop(dropStale)
			s.hub.refuseLater(p, reasonGone)
		}
	}
}
