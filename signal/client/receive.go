package client

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// message is any message of the server; fields that its type does not have are zero.
type message struct {
	Type      string          `json:"type"`
	Seq       uint64          `json:"seq"`
	ID        string          `json:"id"`
	Peer      either          `json:"peer"`
	From      either          `json:"from"`
	By        Peer            `json:"by"`
	Peers     []Peer          `json:"peers"`
	User      string          `json:"user"`
	Name      string          `json:"name"`
	Resume    string          `json:"resume"`
	Resumed   bool            `json:"resumed"`
	Received  uint64          `json:"received"`
	Room      string          `json:"room"`
	Version   uint64          `json:"version"`
	You       string          `json:"you"`
	Relay     string          `json:"relay"`
	To        string          `json:"to"`
	Data      json.RawMessage `json:"data"`
	Reason    string          `json:"reason"`
	Code      string          `json:"code"`
	Message   string          `json:"message"`
	Field     string          `json:"field"`
	Call      string          `json:"call"`
	AfterMs   int64           `json:"afterMs"`
	ExpiresAt time.Time       `json:"expiresAt"`
	Servers   []ICEServer     `json:"iceServers"`
	TTL       int64           `json:"ttlSeconds"`
	Limits    Limits          `json:"limits"`
}

// either is a peer id or a peer object: which one depends on the message.
type either struct{ Peer }

// UnmarshalJSON takes both.
func (e *either) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &e.ID)
	}
	return json.Unmarshal(b, &e.Peer)
}

func parse(frame []byte) (m message, err error) {
	if err := json.Unmarshal(frame, &m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrServer, err)
	}
	if m.Type == "" {
		return m, fmt.Errorf("%w: a message without type", ErrServer)
	}
	return m, nil
}

// ice are the servers of a message. They end when the server says or after the time it gives, whichever clock is right.
func (m *message) ice() ICE { return ICE{Servers: m.Servers, ExpiresAt: m.ExpiresAt} }

func (m *message) fault() error { return &Error{Code: m.Code, Message: m.Message, Field: m.Field} }

// greet says hello and waits for the welcome.
func (c *Client) greet(ctx context.Context, conn *websocket.Conn) error {
	hello := map[string]any{"type": "hello"}
	if c.o.Name != "" {
		hello["name"] = c.o.Name
	}
	c.mu.Lock()
	if c.resume != "" {
		hello["resume"] = map[string]any{"token": c.resume, "seq": c.handled}
	}
	c.mu.Unlock()
	b, err := json.Marshal(hello)
	if err != nil {
		return fmt.Errorf("callbox client: hello: %w", err)
	}
	if err := conn.Write(ctx, websocket.MessageText, b); err != nil {
		return fmt.Errorf("callbox client: hello: %w", err)
	}
	_, frame, err := conn.Read(ctx)
	if err != nil {
		return fmt.Errorf("callbox client: no welcome: %w", err)
	}
	m, err := parse(frame)
	switch {
	case err != nil:
		return err
	case m.Type == "error":
		return m.fault()
	case m.Type != "welcome" || m.Peer.ID == "" || !m.Resumed && m.Seq != 1 || len(m.Resume) > maxToken:
		return fmt.Errorf("%w: no proper welcome", ErrServer)
	}
	return c.welcomed(&m)
}

// welcomed takes over what the server says of the session.
func (c *Client) welcomed(m *message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := Connected{Peer: m.Peer.ID, User: m.User, Name: m.Name, Limits: m.Limits, Resumed: m.Resumed}
	if m.Resumed && c.resume == "" {
		return fmt.Errorf("%w: it resumes what has not begun", ErrServer)
	}
	c.limits = m.Limits
	if m.Resumed {
		c.resume = m.Resume
		c.confirmLocked(m.Received)
		c.next = 0
		c.ackAt, c.taken = time.Time{}, 0 // to resume is to acknowledge
	} else {
		e.Unconfirmed = c.restartLocked(m.Resume)
	}
	e.Changed = c.who.Peer != "" && c.who.Peer != m.Peer.ID
	c.who, c.online, c.goAt = e, true, time.Time{}
	c.who.Unconfirmed = nil
	c.enqueueLocked(e, 0, 0)
	if !m.Resumed {
		for _, name := range slices.Sorted(maps.Keys(c.rooms)) {
			c.joinLocked(name)
		}
	}
	if c.o.RenewICE && m.Servers != nil {
		c.renewedLocked("", m, 0)
	}
	return nil
}

// restartLocked begins the numbers anew and returns what the server may not have handled.
func (c *Client) restartLocked(resume string) (lost []Unconfirmed) {
	for i := range c.outbox {
		if u := c.outbox[i].lost; u != nil {
			lost = append(lost, *u)
		}
	}
	c.session = session{resume: resume, handled: 1}
	for i := range c.queue.entries {
		c.queue.entries[i].upto = 0 // numbers of the one before
	}
	close(c.space)
	c.space = make(chan struct{})
	c.failPendingLocked(ErrSessionLost)
	return lost
}

// failPendingLocked answers everybody who waits.
func (c *Client) failPendingLocked(err error) {
	waiting := c.pending
	c.pending = make(map[string]answer)
	for _, then := range waiting {
		then(nil, err)
	}
}

// receive handles one message of an established connection. An error ends the connection.
func (c *Client) receive(frame []byte) error {
	m, err := parse(frame)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Seq > 0 && m.Type != "ack" {
		switch {
		case m.Seq <= c.handled: // said again
			return nil
		case m.Seq > c.handled+1:
			return fmt.Errorf("%w: message %d follows %d", ErrServer, m.Seq, c.handled)
		}
		// A hostile server does not keep to what may be unacknowledged.
		if c.queue.bytes+len(frame) > c.o.MaxQueue {
			return errFull
		}
		c.handled = m.Seq
	}
	c.dispatchLocked(&m, len(frame))
	if m.Seq > 0 && m.Type != "ack" && len(c.queue.entries) == 0 && c.takenLocked(len(frame)) {
		c.poke()
	}
	if c.err == nil && c.next < len(c.outbox) { // an answer has led to a question
		c.poke()
	}
	return nil
}

// dispatchLocked answers who asked, and makes the event where the message is one.
func (c *Client) dispatchLocked(m *message, size int) {
	switch m.Type {
	case "ack":
		c.confirmLocked(m.Seq)
		return
	case "pong":
		c.confirmLocked(m.Received)
		return
	case "goaway":
		after := time.Duration(min(max(m.AfterMs, 0), int64(maxGoaway/time.Millisecond))) * time.Millisecond
		c.goAt = time.Now().Add(jitter(after))
		c.poke()
		return
	}
	then := c.pending[m.ID]
	if m.ID == "" {
		then = nil
	}
	if then != nil {
		delete(c.pending, m.ID)
		if m.Type == "error" {
			then(nil, m.fault())
		} else {
			then(m, nil)
		}
	}
	if m.Type == "joined" {
		c.joinedLocked(m, size)
		return
	}
	if then != nil {
		return
	}
	if m.Type == "ice-servers" && m.Servers != nil && c.o.RenewICE { // the server's addresses have changed
		c.renewedLocked(m.Room, m, size)
	}
	if e := m.event(); e != nil {
		c.enqueueLocked(e, m.Seq, size)
	}
	if changed := m.Type == "room-changed" && m.Room == c.last; changed && c.o.RenewICE {
		c.iceAt = time.Now()
	}
}

// event is what a message that answers nothing tells the program; nil: nothing that this release knows.
func (m *message) event() Event {
	switch m.Type {
	case "peer-joined":
		return PeerJoined{m.Room, m.Version, m.Peer.Peer}
	case "peer-left":
		return PeerLeft{m.Room, m.Version, m.Peer.ID, m.Reason}
	case "room-changed":
		return RoomChanged{m.Room, m.Version, m.Relay}
	case "signal":
		return Signal{m.From.ID, m.Data}
	case "broadcast":
		return Broadcast{m.Room, m.From.ID, m.Data}
	case "undeliverable":
		return Undeliverable{m.To, m.Reason}
	case "ring":
		return Ring{m.Call, m.From.Peer, m.Room, m.ExpiresAt}
	case "ring-ended":
		return RingEnded{m.Call, m.Reason}
	case "accepted":
		return Accepted{m.Call, m.By, m.Room}
	case "declined":
		return Declined{m.Call, m.Reason, m.By}
	case "error":
		return Refused{&Error{m.Code, m.Message, m.Field}}
	}
	return nil
}

func (c *Client) joinedLocked(m *message, size int) {
	r := c.rooms[m.Room]
	if r == nil {
		return // left meanwhile
	}
	e := Joined{m.Room, m.Version, m.Peers, m.You, m.Relay}
	c.enqueueLocked(e, m.Seq, size)
	r.joined = true
	r.tell(result{joined: e})
	c.last = m.Room
	if c.o.RenewICE {
		c.iceAt = time.Now()
		c.poke()
	}
}

// renewICELocked asks for fresh servers, for the room joined last.
func (c *Client) renewICELocked() {
	room := c.last
	if c.rooms[room] == nil {
		room = ""
	}
	c.iceAt = time.Time{}
	c.requestLocked("ice-servers", roomField(room), func(m *message, err error) {
		switch {
		case err == nil:
			c.renewedLocked(room, m, 0)
		case hasCode(err, CodeUnavailable): // the server offers none
		default:
			c.iceAt = time.Now().Add(c.o.MaxBackoff)
		}
	})
}

// leastICE is the shortest time between two questions for ICE servers.
const leastICE = time.Second

func (c *Client) renewedLocked(room string, m *message, size int) {
	c.enqueueLocked(Renewed{room, m.ice()}, 0, size)
	life := time.Until(m.ExpiresAt)
	if m.TTL > 0 && m.TTL < int64(24*time.Hour/time.Second) { // needs no clock to be right
		life = time.Duration(m.TTL) * time.Second
	}
	c.iceAt = time.Now().Add(max(life/2, leastICE))
}

// reader reads until the connection ends and says why. Started and waited for by serve.
func (c *Client) reader(conn *websocket.Conn, heard func()) error {
	for {
		kind, frame, err := conn.Read(c.ctx)
		if err != nil {
			return err
		}
		heard()
		if kind != websocket.MessageText {
			return fmt.Errorf("%w: a binary frame", ErrServer)
		}
		if err := c.receive(frame); err != nil {
			return err
		}
	}
}

// quiet shortens an error of the websocket package.
func quiet(err error) string { return strings.TrimPrefix(err.Error(), "failed to get reader: ") }
