package signal

import (
	"context"
	"errors"
)

const opPong = 0xA

// errIdle: a connection has answered a ping and said nothing else.
var errIdle = errors.New("signal: connection is idle")

// takePongs handles answers to pings between two messages. The websocket package would take
// them too, but then wait for the next message deep inside itself, and idle connections with it.
func (c *conn) takePongs() {
	const head = 6 // of a short masked frame (RFC 6455, section 5.2)
	for len(c.in) >= head && c.in[0] == 0x80|opPong {
		n := head + int(c.in[1]&0x7f)
		if c.in[1]&0x80 == 0 || n > head+125 || n > len(c.in) {
			return // malformed, or not all here: that is for the package
		}
		c.consume(n)
		c.pongReceived(context.Background(), nil)
	}
}

// consume drops what was read, and gives the buffer back after the last of it.
func (c *conn) consume(n int) {
	c.taken += n
	if c.in = c.in[n:]; len(c.in) > 0 {
		return
	}
	c.in = nil
	if c.lent != nil {
		c.hub.buffers.put(c.lent)
		c.lent = nil
	}
}
