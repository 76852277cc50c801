package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

const (
	pingAfter   = 20 * time.Second // of silence
	dropAfter   = 10 * time.Second // without an answer to that
	maxGoaway   = time.Minute
	lasting     = 10 * time.Second // a connection that stood so long was a good one
	queuePoll   = 50 * time.Millisecond
	idleForever = time.Hour
)

const logError = "error"

var (
	errSilent  = errors.New("callbox client: the server is silent")
	errSevered = errors.New("callbox client: reconnecting")
	errAway    = errors.New("callbox client: this node is going away")
	errFull    = errors.New("callbox client: the events are not taken")
)

// run keeps the session connected until it is over. Started by Dial, waited for by Close.
func (c *Client) run(conn *websocket.Conn) {
	defer close(c.done)
	defer c.cancel()
	for {
		begun := time.Now()
		err := c.serve(conn)
		_ = conn.CloseNow()
		c.mu.Lock()
		c.online = false
		closing := c.closing
		c.mu.Unlock()
		final := c.final(err)
		if closing || c.ctx.Err() != nil {
			final = ErrClosed
		}
		if final != nil {
			c.finish(final)
			return
		}
		if time.Since(begun) > lasting {
			c.failures = 0
		}
		c.log.Debug("signaling connection ended", logError, quiet(err))
		c.mu.Lock()
		c.enqueueLocked(Disconnected{err}, 0, 0)
		c.mu.Unlock()
		if conn = c.comeBack(err); conn == nil {
			return
		}
	}
}

// comeBack connects again, with backoff. Nil: it is over.
func (c *Client) comeBack(err error) *websocket.Conn {
	wait := c.backoff()
	c.failures++ // unless this one lasts
	switch websocket.CloseStatus(err) {
	case closeOverload:
		wait = c.o.MaxBackoff
	case closeSlow, closeGoingAway:
		wait /= 4
	}
	if errors.Is(err, errAway) || errors.Is(err, errSevered) {
		wait = 0
	}
	for {
		if !c.pause(wait) || !c.drained() {
			c.finish(ErrClosed)
			return nil
		}
		conn, err := c.connect(c.ctx)
		if err == nil {
			return conn
		}
		if final := c.final(err); final != nil {
			c.finish(final)
			return nil
		}
		c.log.Debug("no signaling connection", logError, quiet(err))
		c.failures++
		wait = c.backoff()
	}
}

// backoff is the pause before the next try.
func (c *Client) backoff() time.Duration {
	d := c.o.Backoff
	for range min(c.failures, 16) {
		d = min(2*d, c.o.MaxBackoff)
	}
	return d/2 + rand.N(d)
}

// jitter is a random part of a time.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// pause waits, less if Reconnect is called. False: the client is closing.
func (c *Client) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		c.mu.Lock()
		closing, sever := c.closing, c.sever
		c.sever = false
		c.mu.Unlock()
		if closing {
			return false
		}
		if sever {
			return true
		}
		select {
		case <-t.C:
			return true
		case <-c.ctx.Done():
			return false
		case <-c.wake:
		}
	}
}

// drained waits until the program has taken half of the events that fit: to resume is to ask for more. False: the client is
// closing.
func (c *Client) drained() bool {
	for {
		c.mu.Lock()
		waiting := c.queue.bytes
		c.mu.Unlock()
		if waiting <= c.o.MaxQueue/2 {
			return true
		}
		if !c.pause(queuePoll) {
			return false
		}
	}
}

// finish ends the client for good.
func (c *Client) finish(err error) {
	c.mu.Lock()
	c.err = err
	close(c.over)
	c.failPendingLocked(err)
	for name, m := range c.rooms {
		delete(c.rooms, name)
		m.tell(result{err: err})
	}
	c.outbox, c.bytes, c.next = nil, 0, 0
	c.queue.signal()
	c.mu.Unlock()
}

// serve writes to a connection and watches it until it ends, and says why. It starts the reader and waits for it.
func (c *Client) serve(conn *websocket.Conn) error {
	var lastRead atomic.Int64
	heard := func() { lastRead.Store(time.Now().UnixNano()) }
	heard()
	ended := make(chan error, 1)
	go func() { ended <- c.reader(conn, heard) }()
	err, readerEnded := c.write(conn, ended, &lastRead)
	_ = conn.CloseNow()
	if !readerEnded {
		<-ended
	}
	return err
}

// write is the writing half of serve. True: what it returns is the reader's.
func (c *Client) write(conn *websocket.Conn, ended <-chan error, lastRead *atomic.Int64) (error, bool) {
	timer := time.NewTimer(idleForever)
	defer timer.Stop()
	var frames [][]byte
	pinged := false
	for {
		now := time.Now()
		silence := now.Sub(time.Unix(0, lastRead.Load()))
		if silence < pingAfter {
			pinged = false
		}
		c.mu.Lock()
		err := c.dueLocked(now)
		frames = c.collectLocked(frames[:0], now)
		closing := c.closing
		next := c.nextLocked(now)
		c.mu.Unlock()
		switch {
		case silence > pingAfter+dropAfter:
			return errSilent, false
		case silence > pingAfter && !pinged:
			pinged = true
			frames = append(frames, []byte(`{"type":"ping"}`))
		}
		if closing {
			frames = append(frames, []byte(`{"type":"bye"}`))
		}
		if err := c.writeAll(conn, frames); err != nil {
			// The reader knows better why, if the server has said so.
			select {
			case err := <-ended:
				return err, true
			case <-time.After(closeGrace):
			}
			return err, false
		}
		clear(frames)
		if closing {
			return c.farewell(ended)
		}
		if err != nil {
			return err, false
		}
		if pinged {
			next = min(next, pingAfter+dropAfter-silence)
		} else {
			next = min(next, pingAfter-silence)
		}
		timer.Reset(max(next, 0) + time.Millisecond)
		select {
		case err := <-ended:
			return err, true
		case <-c.ctx.Done():
			return c.ctx.Err(), false
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// closeGrace is how long a close frame may take to be read after a write has failed.
const closeGrace = 250 * time.Millisecond

func (c *Client) writeAll(conn *websocket.Conn, frames [][]byte) error {
	if len(frames) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, writeTimeout)
	defer cancel()
	for _, f := range frames {
		if err := conn.Write(ctx, websocket.MessageText, f); err != nil {
			return err
		}
	}
	return nil
}

// farewell waits for the server to close after bye.
func (c *Client) farewell(ended <-chan error) (error, bool) {
	t := time.NewTimer(goodbyeTimeout)
	defer t.Stop()
	select {
	case err := <-ended:
		return err, true
	case <-t.C:
		return ErrClosed, false
	case <-c.ctx.Done():
		return ErrClosed, false
	}
}

// dueLocked does what is due. An error: the connection is to be given up for another one.
func (c *Client) dueLocked(now time.Time) error {
	if c.sever {
		c.sever = false
		return errSevered
	}
	if !c.goAt.IsZero() && !now.Before(c.goAt) {
		c.goAt = time.Time{}
		return errAway
	}
	for name, m := range c.rooms {
		if !m.retryAt.IsZero() && !now.Before(m.retryAt) {
			c.joinLocked(name)
		}
	}
	if !c.iceAt.IsZero() && !now.Before(c.iceAt) {
		c.renewICELocked()
	}
	return nil
}

// nextLocked is how long nothing is due.
func (c *Client) nextLocked(now time.Time) time.Duration {
	next := idleForever
	at := func(t time.Time) {
		if !t.IsZero() {
			next = min(next, t.Sub(now))
		}
	}
	at(c.ackAt)
	at(c.goAt)
	at(c.iceAt)
	for _, m := range c.rooms {
		at(m.retryAt)
	}
	return next
}
