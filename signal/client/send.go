package client

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// outgoing is a numbered message that the server has not confirmed.
type outgoing struct {
	seq   uint64
	frame []byte
	lost  *Unconfirmed // what to report if its session is lost; nil for requests, which fail
}

// acknowledging: at the latest so many messages or bytes or so long after the first that is not acknowledged. The protocol
// allows twice as much.
const (
	ackMessages = 16
	ackBytes    = 32 << 10
	ackAfter    = 500 * time.Millisecond
)

// takenLocked notes that something of so many bytes was handled. True: the writer has to be woken.
func (c *Client) takenLocked(bytes int) bool {
	c.taken += bytes
	able := c.ackableLocked()
	if able <= c.acked {
		return false
	}
	now := time.Now()
	switch {
	case able-c.acked >= ackMessages || c.taken >= ackBytes:
		wake := c.ackAt.IsZero() || c.ackAt.After(now)
		c.ackAt = now
		return wake
	case c.ackAt.IsZero():
		c.ackAt = now.Add(ackAfter)
		return true
	}
	return false
}

// Signal sends JSON to one peer with which this client shares a room. data is marshalled; a json.RawMessage goes as it is. It
// returns when the message is queued, which waits while too many are unconfirmed. What cannot be delivered comes back as
// Undeliverable.
func (c *Client) Signal(ctx context.Context, to string, data any) error {
	raw, err := encode(data)
	if err != nil {
		return err
	}
	return c.send(ctx, "signal", &Unconfirmed{To: to, Data: raw}, func(b []byte) []byte {
		b = append(quoted(append(b, `,"to":`...), to), `,"data":`...)
		return append(b, raw...)
	})
}

// Broadcast sends JSON to everybody else in a room this client is in; see Signal.
func (c *Client) Broadcast(ctx context.Context, room string, data any) error {
	raw, err := encode(data)
	if err != nil {
		return err
	}
	return c.send(ctx, "broadcast", &Unconfirmed{Room: room, Data: raw}, func(b []byte) []byte {
		b = append(quoted(append(b, `,"room":`...), room), `,"data":`...)
		return append(b, raw...)
	})
}

func encode(data any) (json.RawMessage, error) {
	if raw, ok := data.(json.RawMessage); ok {
		if !json.Valid(raw) {
			return nil, ErrData
		}
		return raw, nil
	}
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrData, err)
	}
	return raw, nil
}

// quoted appends a JSON string.
func quoted(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil {
		return append(b, `""`...) // cannot be: every string has a JSON form
	}
	return append(b, q...)
}

// send queues a numbered message when there is room for it. fields appends its members, each after a comma.
func (c *Client) send(ctx context.Context, kind string, lost *Unconfirmed, fields func([]byte) []byte) error {
	for {
		c.mu.Lock()
		if err := c.endedLocked(); err != nil {
			c.mu.Unlock()
			return err
		}
		if len(c.outbox) < maxOutbox && c.bytes < maxOutboxBytes {
			err := c.sendLocked(kind, lost, fields)
			c.mu.Unlock()
			c.poke()
			return err
		}
		space := c.space
		c.mu.Unlock()
		select {
		case <-space:
		case <-c.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endedLocked is the error of who asks for something when it is over.
func (c *Client) endedLocked() error {
	if c.err != nil {
		return c.err
	}
	if c.closing {
		return ErrClosed
	}
	return nil
}

func (c *Client) sendLocked(kind string, lost *Unconfirmed, fields func([]byte) []byte) error {
	b := append(make([]byte, 0, 128), `{"type":"`...)
	b = append(append(b, kind...), `","seq":`...)
	b = strconv.AppendUint(b, c.sent+1, 10)
	b = append(fields(b), '}')
	if limit := c.limits.FrameBytes; limit > 0 && len(b) > limit {
		return fmt.Errorf("%w: %d bytes of %d", ErrTooLarge, len(b), limit)
	}
	c.sent++
	c.outbox = append(c.outbox, outgoing{c.sent, b, lost})
	c.bytes += len(b)
	return nil
}

// confirmLocked forgets what the server has.
func (c *Client) confirmLocked(received uint64) {
	n := 0
	for n < len(c.outbox) && c.outbox[n].seq <= received {
		c.bytes -= len(c.outbox[n].frame)
		n++
	}
	if n == 0 {
		return
	}
	clear(c.outbox[:n])
	c.outbox = c.outbox[n:]
	c.next = max(0, c.next-n)
	close(c.space)
	c.space = make(chan struct{})
}

// collectLocked gathers what is to be written now.
func (c *Client) collectLocked(frames [][]byte, now time.Time) [][]byte {
	for ; c.next < len(c.outbox); c.next++ {
		frames = append(frames, c.outbox[c.next].frame)
	}
	if !c.ackAt.IsZero() && !now.Before(c.ackAt) {
		c.ackAt, c.taken = time.Time{}, 0
		if able := c.ackableLocked(); able > c.acked {
			c.acked = able
			frames = append(frames, strconv.AppendUint([]byte(`{"type":"ack","seq":`), able, 10))
			frames[len(frames)-1] = append(frames[len(frames)-1], '}')
		}
	}
	return frames
}
