package signal

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/coder/websocket"
)

const opPong = 0xA

// errIdle: a connection has answered a ping and said nothing else.
var errIdle = errors.New("signal: connection is idle")

// await waits for something that only the websocket package can read, with a shallow stack: this is where idle
// connections spend their lives. Whole messages and pongs it handles itself. errIdle: there was only a sign of life,
// and the stack has grown before.
func (c *conn) await(grown bool) (bool, error) {
	for c.sock != nil && c.br.Buffered() == 0 {
		if len(c.in) == 0 {
			if err := c.fill(); err != nil {
				return grown, err
			}
		}
		messages := c.takeFrames()
		switch {
		case len(c.in) > 0: // for the package, which is faster than a wait
			return true, nil
		case messages > 0:
			grown = true
		case grown:
			return grown, errIdle
		}
	}
	return grown, nil
}

// takeFrames handles the frames at the start of what was read that are a whole text message or a pong, and says how many
// messages there were. The websocket package would read them too, but copy each twice and wait for the next deep inside
// itself. It is left what is more than that: fragments, other frames, anything malformed, a frame that is not all here.
func (c *conn) takeFrames() (messages int) {
	for {
		op, payload, n := wholeFrame(c.in, c.hub.limits.FrameBytes)
		switch op {
		case opText:
			c.taken += n
			c.alive()
			if !c.closing() { // else reading on only for the client's close frame
				c.handle(websocket.MessageText, payload)
			}
			messages++
			c.drop(n)
		case opPong:
			c.consume(n)
			c.pongReceived(context.Background(), nil)
		default:
			return messages
		}
	}
}

// wholeFrame is the frame at the start of b and its length, if it is one for takeFrames; else op is 0. The payload is
// unmasked where it stands (RFC 6455, sections 5.2 and 5.3).
func wholeFrame(b []byte, limit int) (op byte, payload []byte, n int) {
	const head, mask = 2, 4
	if len(b) < head+mask || b[0] != 0x80|opText && b[0] != 0x80|opPong || b[1]&0x80 == 0 {
		return 0, nil, 0
	}
	op = b[0] & 0x0f
	size, start := int(b[1]&0x7f), head+mask
	switch {
	case size <= 125:
	case op == opPong || size == 127: // a control frame is short; a long message is rare
		return 0, nil, 0
	default:
		size, start = int(binary.BigEndian.Uint16(b[head:])), start+2
		if size <= 125 {
			return 0, nil, 0
		}
	}
	if size > limit || start+size > len(b) {
		return 0, nil, 0
	}
	payload = b[start : start+size : start+size]
	unmask(payload, [mask]byte(b[start-mask:start]))
	return op, payload, start + size
}

// unmask is its own inverse.
func unmask(b []byte, key [4]byte) {
	k := uint64(binary.LittleEndian.Uint32(key[:]))
	if k == 0 {
		return
	}
	k |= k << 32
	i := 0
	for ; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], binary.LittleEndian.Uint64(b[i:])^k)
	}
	for ; i < len(b); i++ {
		b[i] ^= key[i&3]
	}
}

// consume drops what was read, and counts it.
func (c *conn) consume(n int) {
	c.taken += n
	c.drop(n)
}

// drop gives the buffer back after the last of it.
func (c *conn) drop(n int) {
	if c.in = c.in[n:]; len(c.in) > 0 {
		return
	}
	c.in = nil
	if c.lent != nil {
		c.hub.buffers.put(c.lent)
		c.lent = nil
	}
}

// later leaves the writing of what is queued for s to push, so that messages that came together leave together.
func (c *conn) later(s *session) {
	if c.late != s {
		c.push()
		c.late = s
	}
}

// push writes what later has left.
func (c *conn) push() {
	if s := c.late; s != nil {
		c.late = nil
		s.flush()
	}
}
