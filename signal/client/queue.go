package client

import "context"

// queue holds events until Next takes them. It never blocks who fills it: how much the server may send before something is
// acknowledged bounds it, and the client's own limit does where a server does not keep to that. Guarded by Client.mu.
type queue struct {
	entries []entry
	bytes   int
	ready   chan struct{} // of one element: there is something, or there will be nothing more
}

type entry struct {
	e     Event
	upto  uint64 // the highest number of the present session that is handled when all before this entry are taken
	bytes int
}

const entryOverhead = 64

func (q *queue) init() { q.ready = make(chan struct{}, 1) }

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// enqueueLocked adds an event. seq is the number of the message it came with, 0 if it is the client's own.
func (c *Client) enqueueLocked(e Event, seq uint64, bytes int) {
	upto := c.handled
	if seq > 0 {
		upto = seq - 1
	}
	bytes += entryOverhead
	c.queue.entries = append(c.queue.entries, entry{e, upto, bytes})
	c.queue.bytes += bytes
	c.queue.signal()
}

// ackableLocked is the highest number that may be acknowledged.
func (c *Client) ackableLocked() uint64 {
	if len(c.queue.entries) > 0 {
		return c.queue.entries[0].upto
	}
	return c.handled
}

// Next returns the next event. It waits until there is one, ctx ends (its error), or the client has ended: then, after the last
// event, the error says why: ErrClosed, ErrReplaced, ErrUnauthorized, ErrRefused or ErrFaulty.
//
// Events that nobody takes pile up at the server, which in the end closes the connection; so a program takes them all, and
// ignores those it does not need.
func (c *Client) Next(ctx context.Context) (Event, error) {
	for {
		c.mu.Lock()
		if q := &c.queue; len(q.entries) > 0 {
			first := q.entries[0]
			q.entries[0] = entry{}
			q.entries = q.entries[1:]
			q.bytes -= first.bytes
			if len(q.entries) == 0 {
				q.entries = nil
			}
			wake := c.takenLocked(first.bytes)
			if len(q.entries) > 0 || c.err != nil {
				q.signal()
			}
			c.mu.Unlock()
			if wake {
				c.poke()
			}
			return first.e, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			c.queue.signal() // for the next call
			return nil, err
		}
		select {
		case <-c.queue.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
