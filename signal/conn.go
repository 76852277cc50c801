package signal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// conn is one WebSocket connection. The websocket package does the handshake,
// reads, and answers pings; what it writes (control frames only) comes through
// Write and is queued here, so that data frames can be written by us, many in
// one system call, with nothing kept for a connection that is idle.
type conn struct {
	net.Conn // what was hijacked; Write and Close are overridden

	hub   *Hub
	proto protocol
	ws    *websocket.Conn
	sock  *socket       // nil: not a plain socket, writing cannot be tried without blocking
	id    Identity      // owned by the reader until a session has it
	meter meter         // owned by the reader
	br    *bufio.Reader // owned by the reader: the websocket package's
	in    []byte        // owned by the reader: what was read and is not consumed
	taken int           // owned by the reader: bytes read since the meter was asked
	lent  *[]byte       // owned by the reader: the pool's buffer behind in
	late  *session      // owned by the reader: has something queued that push will write

	s        atomic.Pointer[session] // set once by the reader
	upgraded atomic.Bool             // the fields above and Conn are set
	holder   string                  // owned by Hub.mu: the logged-in user it is counted for
	lastRead atomic.Int64            // Hub.clock at the last frame
	pinged   atomic.Bool             // a ping is out since lastRead
	beatAt   atomic.Int64            // when the next heartbeat is due, unix nanoseconds
	leaveAt  atomic.Int64            // while draining: when to close, unix milliseconds

	mu      sync.Mutex
	ctl     []byte // frames outside the session's queue, ready to write
	final   []byte // the close frame; nothing follows it
	urgent  bool   // the close frame does not wait for the queue
	writing bool
	again   bool // something was queued while writing
	done    bool // the close frame is written, or the socket has failed
}

// hijacker hands the websocket package our conn with small buffers in place of
// the HTTP server's.
type hijacker struct {
	http.ResponseWriter
	c *conn
}

const (
	readBuffer    = 1 << 10  // where reading is the runtime's
	headerBuffer  = 16       // where it is ours
	controlBuffer = 160      // holds any control frame, so that it comes in one Write
	writeChunk    = 32 << 10 // bytes gathered for one write
	writeTimeout  = 30 * time.Second
)

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := brw.Reader.Peek(brw.Reader.Buffered())
	c := h.c
	c.Conn, c.in = nc, append([]byte(nil), early...)
	c.sock = newSocket(nc, &c.hub.buffers)
	size := readBuffer
	if c.sock != nil {
		size = headerBuffer
	}
	c.br = bufio.NewReaderSize(c, size)
	return c, bufio.NewReadWriter(c.br, bufio.NewWriterSize(c, controlBuffer)), nil
}

// Read is for the websocket package.
func (c *conn) Read(p []byte) (int, error) {
	// Fragments without end, perhaps empty ones, are no message that the meter would see.
	if c.taken > 2*c.hub.limits.FrameBytes+controlBytes {
		return 0, errNoMessage
	}
	if len(c.in) == 0 {
		if c.sock == nil || len(p) >= keepBuffer {
			c.push()
			n, err := c.Conn.Read(p)
			c.taken += n
			return n, err
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.in)
	c.consume(n)
	return n, nil
}

var errNoMessage = errors.New("signal: more bytes than a message has, without one")

// fill waits for bytes to read. Until they come it holds no buffer.
func (c *conn) fill() error {
	c.push()
	lent, err := c.sock.fill()
	if err != nil {
		return err
	}
	c.lent, c.in = lent, *lent
	return nil
}

// Write is for the websocket package: one whole control frame.
func (c *conn) Write(p []byte) (int, error) {
	if !c.queueControl(p) {
		return 0, net.ErrClosed
	}
	c.kick()
	return len(p), nil
}

// control sends an event outside the session's numbering.
func (c *conn) control(s *session, e *event) {
	b := c.proto.append(nil, s, 0, e)
	if len(b) == 0 {
		return
	}
	if c.queueControl(append(frameHeader(make([]byte, 0, 10+len(b)), opText, len(b)), b...)) {
		c.kick()
	}
}

// queueControl takes ready frames. False: the connection is closing.
func (c *conn) queueControl(p []byte) bool {
	c.mu.Lock()
	if c.final != nil || c.done {
		c.mu.Unlock()
		return false
	}
	if len(c.ctl)+len(p) > controlBytes {
		c.mu.Unlock()
		c.hub.stats.drop(dropControl)
		c.shutdown(closeSlow, "slow reader")
		return false
	}
	c.ctl = append(c.ctl, p...)
	c.mu.Unlock()
	return true
}

// shutdown queues the close frame and gives the client a moment to read it. It
// may be called by anyone, more than once; the first code counts. The reader ends the connection.
func (c *conn) shutdown(code closeCode, reason string) {
	c.mu.Lock()
	if c.final != nil || c.done {
		c.mu.Unlock()
		return
	}
	f := frameHeader(make([]byte, 0, 4+len(reason)), opClose, 2+len(reason))
	f = binary.BigEndian.AppendUint16(f, uint16(code))
	c.final = append(f, reason...)
	c.urgent = code == closeSlow
	c.mu.Unlock()
	c.hub.stats.closed(code)
	// Errors mean that the connection has ended already, which the reader sees.
	_ = c.SetDeadline(time.Now().Add(c.hub.limits.CloseLinger))
	c.kick()
}

// closing says whether nothing more is to be done for this connection.
func (c *conn) closing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.final != nil || c.done
}

// kick writes what is queued, as far as the socket takes it without blocking.
func (c *conn) kick() {
	c.mu.Lock()
	if c.writing || c.done {
		c.again = true
		c.mu.Unlock()
		return
	}
	c.writing = true
	c.mu.Unlock()
	c.write()
}

// write is the writer: the caller has set writing, or found it set for it. What the socket
// does not take at once is left to a goroutine.
func (c *conn) write() {
	if c.sock == nil {
		c.handOver(c.writeBlocking)
		return
	}
	buf := c.hub.buffers.get()
	for {
		b := c.collect((*buf)[:0])
		*buf = b
		if len(b) == 0 {
			if c.rest() {
				continue
			}
			break
		}
		n, err := c.sock.try(b)
		if err != nil {
			c.fail()
			break
		}
		if n < len(b) {
			rest := append([]byte(nil), b[n:]...)
			c.handOver(func() {
				if c.writeAll(rest) {
					c.writeBlocking()
				}
			})
			break
		}
	}
	c.hub.buffers.put(buf)
}

// handOver leaves the writing to a goroutine.
func (c *conn) handOver(f func()) {
	if !c.hub.spawn(f) {
		c.fail()
	}
}

// writeBlocking writes until nothing is left. Runs in a goroutine of its own.
func (c *conn) writeBlocking() {
	buf := c.hub.buffers.get()
	defer c.hub.buffers.put(buf)
	for {
		b := c.collect((*buf)[:0])
		*buf = b
		if len(b) == 0 {
			if c.rest() {
				continue
			}
			return
		}
		if !c.writeAll(b) {
			return
		}
	}
}

func (c *conn) writeAll(b []byte) bool {
	if !c.closing() { // else shutdown has set a deadline
		_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	_, err := c.Conn.Write(b)
	if err != nil {
		c.fail()
		return false
	}
	if !c.closing() {
		_ = c.SetWriteDeadline(time.Time{})
	}
	return true
}

// collect gathers frames: control frames first, then the session's queue, the
// close frame last.
func (c *conn) collect(b []byte) []byte {
	c.mu.Lock()
	c.again = false
	if c.done {
		c.mu.Unlock()
		return b
	}
	b = append(b, c.ctl...)
	if cap(c.ctl) > 512 || c.final != nil {
		c.ctl = nil
	} else {
		c.ctl = c.ctl[:0]
	}
	if c.final != nil && c.urgent {
		b = append(b, c.final...)
		c.done = true
		c.mu.Unlock()
		return b
	}
	last := c.final != nil
	c.mu.Unlock()
	if s := c.s.Load(); s != nil {
		b = s.gather(c, b)
	}
	if last && len(b) < writeChunk {
		c.mu.Lock()
		b = append(b, c.final...)
		c.done = true
		c.mu.Unlock()
	}
	return b
}

// rest ends the writing unless something came meanwhile.
func (c *conn) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.again && !c.done {
		return true
	}
	c.writing = false
	return false
}

// fail gives the connection up; the reader notices.
func (c *conn) fail() {
	c.mu.Lock()
	c.done, c.writing, c.ctl = true, false, nil
	c.mu.Unlock()
	_ = c.Conn.Close()
}

// WebSocket frames as a server writes them (RFC 6455, section 5.2).
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
)

func frameHeader(b []byte, op byte, n int) []byte {
	b = append(b, 0x80|op)
	switch {
	case n < 126:
		return append(b, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
}

// closeCode is a WebSocket close code (RFC 6455, section 7.4.2).
type closeCode uint16

const (
	closeNormal   closeCode = 1000
	closeTryLater closeCode = 1013
	closeProtocol closeCode = 4000
	closeAuth     closeCode = 4001
	closeReplaced closeCode = 4002
	closeSlow     closeCode = 4003
	closeRate     closeCode = 4004
	closeAway     closeCode = 4005
	closeHello    closeCode = 4008
)
