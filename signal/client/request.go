package client

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"
)

// answer is called once with what the server says to a request, or why it says nothing. Client.mu is held.
type answer func(m *message, err error)

// membership is a room this client is in or wants to be in.
type membership struct {
	joined  bool
	retryAt time.Time     // when to ask again, after a refusal that passes
	waiting []chan result // of Join
}

type result struct {
	joined Joined
	err    error
}

// ask sends a request and waits for its answer.
func (c *Client) ask(ctx context.Context, kind string, fields func([]byte) []byte) (message, error) {
	type reply struct {
		m   message
		err error
	}
	got := make(chan reply, 1)
	id, err := c.request(ctx, kind, fields, func(m *message, err error) {
		if err != nil {
			got <- reply{err: err}
			return
		}
		got <- reply{m: *m}
	})
	if err != nil {
		return message{}, err
	}
	select {
	case r := <-got:
		return r.m, r.err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
		return message{}, ctx.Err()
	}
}

// request queues a request when there is room for it.
func (c *Client) request(ctx context.Context, kind string, fields func([]byte) []byte, then answer) (id string, err error) {
	c.mu.Lock()
	c.nextID++
	id = strconv.FormatUint(c.nextID, 10)
	c.pending[id] = then
	c.mu.Unlock()
	if err := c.send(ctx, kind, nil, identified(id, fields)); err != nil {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
		return "", err
	}
	return id, nil
}

// requestLocked is request for the client's own purposes, with no regard to how much is unconfirmed: there are few.
func (c *Client) requestLocked(kind string, fields func([]byte) []byte, then answer) {
	c.nextID++
	id := strconv.FormatUint(c.nextID, 10)
	c.pending[id] = then
	if err := c.sendLocked(kind, nil, identified(id, fields)); err != nil {
		delete(c.pending, id)
		then(nil, err)
	}
}

func identified(id string, fields func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		return quoted(append(fields(b), `,"id":`...), id)
	}
}

// field is one member with a string.
func field(name, value string) func([]byte) []byte {
	return func(b []byte) []byte {
		b = append(append(append(b, `,"`...), name...), `":`...)
		return quoted(b, value)
	}
}

// Join enters a room and stays in it, over lost connections and sessions, until Leave or Close. The same Joined comes as an
// event too, in its place among those of the room. Errors are *Error with CodeNotAllowed, CodeRoomFull or CodeTooManyRooms for
// instance; with CodeBusy and CodeRateLimited the client tries again until ctx ends.
func (c *Client) Join(ctx context.Context, room string) (Joined, error) {
	got := make(chan result, 1)
	c.mu.Lock()
	if err := c.endedLocked(); err != nil {
		c.mu.Unlock()
		return Joined{}, err
	}
	m := c.rooms[room]
	if m == nil {
		m = &membership{}
		c.rooms[room] = m
	}
	m.waiting = append(m.waiting, got)
	if len(m.waiting) == 1 {
		c.joinLocked(room)
	}
	c.mu.Unlock()
	c.poke()
	select {
	case r := <-got:
		return r.joined, r.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.waiting = slices.DeleteFunc(m.waiting, func(w chan result) bool { return w == got })
	if len(m.waiting) == 0 && !m.joined && c.rooms[room] == m { // nobody wants it any more
		delete(c.rooms, room)
		c.requestLocked("leave", field("room", room), func(*message, error) {})
		c.poke()
	}
	return Joined{}, ctx.Err()
}

// joinLocked asks for a room.
func (c *Client) joinLocked(room string) {
	m := c.rooms[room]
	m.retryAt = time.Time{}
	c.requestLocked("join", field("room", room), func(answer *message, err error) {
		if c.rooms[room] != m || c.err != nil { // whoever waits is told in other ways
			return
		}
		switch {
		case err == nil: // joined is handled where it comes in
		case hasCode(err, CodeBusy, CodeRateLimited):
			m.retryAt = time.Now().Add(joinAgain)
		case errors.Is(err, ErrSessionLost): // joined again with the new one
		default:
			delete(c.rooms, room)
			m.tell(result{err: err})
			if m.joined {
				c.enqueueLocked(RoomLost{room, err}, 0, 0)
			}
		}
	})
}

// joinAgain is the pause before a room is asked for again.
const joinAgain = time.Second

func (m *membership) tell(r result) {
	for _, w := range m.waiting {
		w <- r
	}
	m.waiting = nil
}

// Leave leaves a room.
func (c *Client) Leave(ctx context.Context, room string) error {
	c.mu.Lock()
	if m := c.rooms[room]; m != nil {
		delete(c.rooms, room)
		m.tell(result{err: context.Canceled})
	}
	c.mu.Unlock()
	_, err := c.ask(ctx, "leave", field("room", room))
	return err
}

// ICEServers asks for ICE servers, those for a room first; a client with a room token has to name its room.
func (c *Client) ICEServers(ctx context.Context, room string) (ICE, error) {
	m, err := c.ask(ctx, "ice-servers", roomField(room))
	if err != nil {
		return ICE{}, err
	}
	return m.ice(), nil
}

func roomField(room string) func([]byte) []byte {
	if room == "" {
		return func(b []byte) []byte { return b }
	}
	return field("room", room)
}

// Call rings every connection of a user, to meet in a room, and returns the call's id. How it ends comes as Accepted or Declined. A
// user who is not connected is an *Error with CodeUnavailable. Neither side joins the room by itself.
func (c *Client) Call(ctx context.Context, user, room string) (call string, expires time.Time, err error) {
	m, err := c.ask(ctx, "call", func(b []byte) []byte { return field("room", room)(field("user", user)(b)) })
	return m.Call, m.ExpiresAt, err
}

// Accept takes a call that rings; the first to do so has it. It returns the room to join.
func (c *Client) Accept(ctx context.Context, call string) (room string, err error) {
	m, err := c.ask(ctx, "accept", field("call", call))
	if err == nil && m.Type == "ring-ended" { // somebody was faster, or the caller has gone
		err = &Error{Code: CodeNoSuchCall, Message: "the call is over: " + m.Reason, Field: "call"}
	}
	return m.Room, err
}

// Decline refuses a call for all connections of the user.
func (c *Client) Decline(ctx context.Context, call string) error {
	_, err := c.ask(ctx, "decline", field("call", call))
	return err
}

// Cancel ends a call of this client's that still rings.
func (c *Client) Cancel(ctx context.Context, call string) error {
	_, err := c.ask(ctx, "cancel", field("call", call))
	return err
}
