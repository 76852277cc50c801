package signal

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/coder/websocket"
)

// ratePause is how long a connection over its rate is not read.
const ratePause = 10 * time.Millisecond

// pings are the heartbeat of a protocol that has none of its own (RFC 6455, section 5.5.2).
func pings(l *Limits) heartbeat {
	return heartbeat{after: l.PingAfter, until: l.PingAfter + l.PingTimeout, frame: "\x89\x00"}
}

// run reads until the connection ends. It owns the connection.
func (c *conn) run() {
	var err error
	grown := false // the stack, by handling a message
	for err == nil {
		if grown, err = c.await(grown); err == nil {
			grown = true
			err = c.readOne()
		}
	}
	// A goroutine keeps a stack as large as it ever needed; an idle connection goes on with a new one.
	if errors.Is(err, errIdle) && c.hub.spawn(c.run) {
		return
	}
	defer c.hub.dismiss(c)
	_ = c.ws.CloseNow()
	c.push()
	if c.lent != nil {
		c.hub.buffers.put(c.lent)
	}
	s := c.s.Load()
	if s == nil {
		return
	}
	if !c.proto.acknowledged() || websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		s.mu.Lock()
		mine := s.conn == c
		s.mu.Unlock()
		if mine {
			c.hub.end(s, reasonLeft, closeNormal, "bye")
		}
		return
	}
	s.detach(c, time.Now())
}

// readOne reads and handles one message.
func (c *conn) readOne() error {
	typ, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return err
	}
	// Only now that there is something to read a buffer is needed.
	buf := c.hub.buffers.get()
	defer c.hub.buffers.put(buf)
	b := (*buf)[:0]
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	*buf = b
	c.alive()
	if c.closing() {
		return nil // reading on only for the client's close frame
	}
	c.handle(typ, b)
	return nil
}

// handle judges one message by the rate and gives it to the protocol.
func (c *conn) handle(typ websocket.MessageType, b []byte) {
	v := c.metered(time.Now())
	if v == overload {
		c.finish(closeRate, "message rate exceeded")
		return
	}
	c.hub.stats.of(c.proto).messages.Add(1)
	c.proto.message(c, v, typ, b)
}

func (c *conn) alive() {
	c.lastRead.Store(c.hub.clock.Load())
	if c.pinged.Load() {
		c.pinged.Store(false)
	}
}

// pingReceived counts a ping like a message; beyond the rate it is not answered.
func (c *conn) pingReceived(context.Context, []byte) bool {
	c.alive()
	return c.metered(time.Now()) == pass
}

// pongReceived counts too: nobody is asked for many.
func (c *conn) pongReceived(context.Context, []byte) {
	c.alive()
	c.metered(time.Now())
}

// metered judges a frame by all bytes that were read for it.
func (c *conn) metered(now time.Time) verdict {
	n := c.taken
	c.taken = 0
	return c.meter.message(n, &c.hub.limits, now)
}

// finish closes the connection and ends the session.
func (c *conn) finish(code closeCode, text string) {
	s := c.s.Load()
	c.shutdown(code, text)
	if s != nil {
		c.hub.end(s, reasonGone, code, text)
	}
}
