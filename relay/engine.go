package relay

import (
	"crypto/rand"
	"fmt"
	"net"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"
)

// engine is one pion server behind a PacketConn that is no socket. The gate calls do with a request it has authenticated; the
// engine signs the request with a key of its own and hands it to pion's read loop; what pion writes before it reads again is
// the answer. So exactly one request is in hand at any time, and pion's callbacks know whose it is.
//
// pion never sees a datagram of an allocation: the allocation is its own relay socket and moves its data by itself.
type engine struct {
	calls  chan *call
	closed chan struct{}
	server *turn.Server
	key    []byte

	// Owned by pion's read loop.
	current *call
	nonce   []byte
	packet  []byte
}

// call is one request on its way through pion. Its answer may be read once done is closed.
type call struct {
	alloc  *allocation
	method method
	tx     []byte
	attrs  func(*writer)
	done   chan struct{}

	// Owned by pion's read loop until done is closed.
	answer  []byte
	retried bool
}

const (
	engineUser  = "gate"
	engineRealm = "engine"
	engineMTU   = 64 << 10
	// longestHour is what pion accepts of the hour that RFC 8656 section 3.2 recommends as the maximum: it takes 3600 for the default.
	longestHour = maxLifetime - time.Second
)

func newEngine() (*engine, error) {
	e := &engine{
		calls:  make(chan *call),
		closed: make(chan struct{}),
		key:    make([]byte, 16),
		nonce:  []byte("none yet"),
	}
	rand.Read(e.key)
	server, err := turn.NewServer(turn.ServerConfig{
		Realm:         engineRealm,
		AuthHandler:   func(string, string, net.Addr) ([]byte, bool) { return e.key, true },
		InboundMTU:    engineMTU,
		LoggerFactory: silence{},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            e,
			RelayAddressGenerator: generator{e},
			PermissionHandler:     func(net.Addr, net.IP) bool { return true }, // the gate has asked the policy
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("turn engine: %w", err)
	}
	e.server = server
	return e, nil
}

// do passes one request through pion and returns its answer, valid until the caller drops it. A nil tx means that nobody will
// see the answer. It must not be called from inside pion, which closing an allocation is.
func (e *engine) do(a *allocation, m method, tx []byte, attrs func(*writer)) (message, error) {
	if tx == nil {
		tx = make([]byte, txSize)
		rand.Read(tx)
	}
	c := &call{alloc: a, method: m, tx: tx, attrs: attrs, done: make(chan struct{})}
	select {
	case e.calls <- c:
	case <-e.closed:
		return message{}, ErrClosed
	}
	<-c.done
	answer, err := parse(c.answer)
	if err != nil {
		return message{}, fmt.Errorf("turn engine answered %v with %d bytes: %w", m, len(c.answer), err)
	}
	return answer, nil
}

// ReadFrom ends the request in hand and waits for the next; pion's read loop calls it. It fails only when the engine closes.
func (e *engine) ReadFrom(p []byte) (int, net.Addr, error) {
	if c := e.current; c != nil {
		if !c.retried && e.renew(c.answer) {
			c.retried, c.answer = true, c.answer[:0]
			return e.present(p, c)
		}
		e.current = nil
		close(c.done)
	}
	select {
	case c := <-e.calls:
		e.current = c
		return e.present(p, c)
	case <-e.closed:
		return 0, nil, net.ErrClosed
	}
}

// present writes the request as pion wants it.
func (e *engine) present(p []byte, c *call) (int, net.Addr, error) {
	w := begin(e.packet, c.method, classRequest, c.tx)
	if c.attrs != nil {
		c.attrs(&w)
	}
	w.text(attrUsername, engineUser)
	w.text(attrRealm, engineRealm)
	w.bytes(attrNonce, e.nonce)
	w.sign(e.key)
	e.packet = w.b
	return copy(p, w.b), c.alloc.tuple, nil
}

// renew takes pion's nonce from a 438 answer and reports whether it was one.
func (e *engine) renew(answer []byte) bool {
	m, err := parse(answer)
	if err != nil || m.class != classError || errorCodeOf(&m) != codeStaleNonce {
		return false
	}
	nonce, ok := m.get(attrNonce)
	e.nonce = append(e.nonce[:0], nonce...)
	return ok
}

// errorCodeOf reads ERROR-CODE; an error answer without one, which pion can give, is a server error.
func errorCodeOf(m *message) int {
	if v, ok := m.get(attrErrorCode); ok && len(v) >= 4 {
		return int(v[2])*100 + int(v[3])
	}
	return codeServerError
}

// WriteTo takes pion's answer to the request in hand.
func (e *engine) WriteTo(p []byte, _ net.Addr) (int, error) {
	if c := e.current; c != nil {
		c.answer = append(c.answer[:0], p...)
	}
	return len(p), nil
}

// Close ends pion's read loop, and with it every allocation.
func (e *engine) Close() error {
	select {
	case <-e.closed:
	default:
		close(e.closed)
	}
	return nil
}

// LocalAddr is the server's part of the five-tuple, the same for all: the client's part alone tells allocations apart.
func (e *engine) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv6zero, Port: 1} }

// The deadlines of a PacketConn, which pion does not use.
func (e *engine) SetDeadline(time.Time) error      { return nil }
func (e *engine) SetReadDeadline(time.Time) error  { return nil }
func (e *engine) SetWriteDeadline(time.Time) error { return nil }

// generator gives pion the relay that the gate has opened for the request in hand.
type generator struct{ e *engine }

func (g generator) Validate() error { return nil }

func (g generator) AllocatePacketConn(string, int) (net.PacketConn, net.Addr, error) {
	a := g.e.current.alloc
	a.server.running.Add(1) // pion calls ReadFrom now, which ends with Done
	return a, a.tuple, nil
}

func (g generator) AllocateConn(string, int) (net.Conn, net.Addr, error) {
	return nil, nil, fmt.Errorf("relay over TCP: %w", net.ErrClosed)
}

// silence is pion's logger: whatever it has to say, a stranger's packet made it say it.
type silence struct{}

func (silence) NewLogger(string) logging.LeveledLogger {
	return logging.NewDefaultLeveledLoggerForScope("", logging.LogLevelDisabled, discard{})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
