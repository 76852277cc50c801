package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"callbox/internal/certs"
)

const (
	// firstByteTimeout bounds the wait for each deciding byte and the TLS handshake.
	firstByteTimeout = 10 * time.Second
	// acceptBackoffMax bounds the pause after an accept error such as EMFILE.
	acceptBackoffMax = time.Second
	// alpnHTTP2 is the protocol name of RFC 9113 section 3.2.
	alpnHTTP2 = "h2"
)

// First bytes of the protocols on the port. A STUN message begins with two zero bits and its 14 bit type, of which the
// methods in use leave 0x00 to 0x03 (RFC 8489 section 5); 0x16 is a TLS handshake record (RFC 8446 section 5.1); 0x0D
// begins the signature of PROXY v2.
const (
	firstStunMax = 0x03
	firstProxy   = 0x0D
	firstTLS     = 0x16
)

// portConfig is what a port needs to know.
type portConfig struct {
	Listener   net.Listener
	TLS        *tls.Config           // nil: TLS is refused
	Stream     func(net.Conn)        // takes a STUN or TURN client over; nil: refused
	HTTP       bool                  // false: what is neither STUN nor TLS is refused (a --turn-listen socket)
	StartTLS   bool                  // true: nothing but TLS is taken (tls:// of --turn-listen)
	Trusted    func(netip.Addr) bool // whose PROXY header counts
	PerAddress int                   // connections at a time from one address; 0: no bound
	FirstByte  time.Duration         // 0: firstByteTimeout
	Accepted   func(net.Conn)        // sees every connection; nil: nobody does
	Log        *slog.Logger
}

// portStats counts what came to a port.
type portStats struct {
	HTTP, TLS, Stream, Proxy                    atomic.Uint64 // connections by what they turned out to be
	Refused, Timeout, Malformed, AcceptFailures atomic.Uint64
}

// port answers every protocol of the server on one TCP listener: it looks at the first byte of a connection and hands it
// to the HTTP server (as the net.Listener that http returns) or to the relay.
//
// Its goroutines are the accept loop and one for each connection whose protocol is not known yet; run starts them and
// waits for them.
type port struct {
	cfg   portConfig
	ready chan net.Conn
	done  chan struct{} // closed when the port no longer hands out connections
	once  sync.Once
	stats portStats

	mu      sync.Mutex // guards what follows
	counts  map[netip.Addr]int
	pending map[*portConn]struct{} // connections whose protocol is not known yet
	wg      sync.WaitGroup         // their goroutines
}

func newPort(cfg portConfig) *port {
	if cfg.FirstByte == 0 {
		cfg.FirstByte = firstByteTimeout
	}
	if cfg.Trusted == nil {
		cfg.Trusted = func(netip.Addr) bool { return false }
	}
	return &port{
		cfg:     cfg,
		ready:   make(chan net.Conn),
		done:    make(chan struct{}),
		counts:  make(map[netip.Addr]int),
		pending: make(map[*portConn]struct{}),
	}
}

// run accepts until the port is closed, and returns when every connection has been handed over or closed.
func (p *port) run() error {
	defer p.wg.Wait()
	defer p.close()
	var pause time.Duration
	for {
		raw, err := p.cfg.Listener.Accept()
		if err != nil {
			if p.closed() {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("listener %s: %w", p.cfg.Listener.Addr(), err)
			}
			// Out of descriptors or memory, or a connection that was reset while it queued: all of these pass.
			p.stats.AcceptFailures.Add(1)
			pause = min(max(2*pause, 5*time.Millisecond), acceptBackoffMax)
			p.cfg.Log.Warn("cannot accept a connection; trying again", logError, err, logPause, pause)
			select {
			case <-time.After(pause):
			case <-p.done:
				return nil
			}
			continue
		}
		pause = 0
		if p.cfg.Accepted != nil {
			p.cfg.Accepted(raw)
		}
		p.start(raw)
	}
}

// start counts the connection and finds its protocol on a goroutine of its own.
func (p *port) start(raw net.Conn) {
	c := &portConn{Conn: raw, port: p, remote: raw.RemoteAddr()}
	addr := addrOf(c.remote)
	// A proxy speaks for many: its connections count for the address that its header names.
	if !p.cfg.Trusted(addr) && !p.count(c, addr) {
		p.stats.Refused.Add(1)
		_ = raw.Close()
		return
	}
	p.mu.Lock()
	if p.closed() {
		p.mu.Unlock()
		_ = c.Close()
		return
	}
	p.pending[c] = struct{}{}
	p.wg.Add(1)
	p.mu.Unlock()
	go func() {
		next := p.decide(c)
		p.mu.Lock()
		delete(p.pending, c)
		p.mu.Unlock()
		if next == nil {
			_ = c.Close()
			p.wg.Done()
			return
		}
		p.wg.Done()
		// From here on the connection belongs to the relay or to the HTTP server, and they wait for it.
		next()
	}()
}

// decide finds the protocol of a connection and returns what takes it over, or nil where it is to be closed.
func (p *port) decide(c *portConn) func() {
	_ = c.SetDeadline(time.Now().Add(p.cfg.FirstByte))
	b, err := c.peek()
	if err == nil && b == firstProxy && p.cfg.Trusted(addrOf(c.remote)) {
		p.stats.Proxy.Add(1)
		if err = c.readProxyHeader(); err == nil {
			if addr := addrOf(c.remote); !c.counted() && !p.cfg.Trusted(addr) && !p.count(c, addr) {
				p.stats.Refused.Add(1)
				return nil
			}
			b, err = c.peek()
		}
	}
	if err != nil {
		p.failed(c, err)
		return nil
	}
	if b == firstTLS && p.cfg.TLS != nil {
		return p.decideTLS(c)
	}
	if p.cfg.StartTLS {
		p.stats.Malformed.Add(1)
		return nil
	}
	return p.hand(c, b)
}

// decideTLS finishes the handshake. HTTP/2 is known by its ALPN name; anything else is known by its first byte, because a
// TURN client names no protocol.
func (p *port) decideTLS(c *portConn) func() {
	p.stats.TLS.Add(1)
	session := tls.Server(c, p.cfg.TLS)
	if err := session.Handshake(); err != nil {
		p.failed(c, err)
		return nil
	}
	if session.ConnectionState().NegotiatedProtocol == certs.ChallengeProtocol {
		return nil // the authority has seen what it came for
	}
	if session.ConnectionState().NegotiatedProtocol == alpnHTTP2 {
		if !p.cfg.HTTP {
			return nil
		}
		_ = session.SetDeadline(time.Time{})
		p.stats.HTTP.Add(1)
		// net/http speaks HTTP/2 only on a bare *tls.Conn.
		return func() { p.offer(session) }
	}
	inner := &secureConn{portConn: &portConn{Conn: session, port: p, remote: c.remote}, session: session}
	b, err := inner.peek()
	if err != nil {
		p.failed(c, err)
		return nil
	}
	return p.hand(inner, b)
}

// hand gives a connection to the one who understands its first byte.
func (p *port) hand(c net.Conn, b byte) func() {
	_ = c.SetDeadline(time.Time{})
	switch {
	case b <= firstStunMax && p.cfg.Stream != nil:
		p.stats.Stream.Add(1)
		return func() { p.cfg.Stream(c) }
	case b > firstStunMax && b != firstTLS && b != firstProxy && p.cfg.HTTP:
		p.stats.HTTP.Add(1)
		return func() { p.offer(c) }
	}
	p.stats.Malformed.Add(1)
	return nil
}

// offer passes a connection to the HTTP server, or closes it when the port is closing.
func (p *port) offer(c net.Conn) {
	select {
	case p.ready <- c:
	case <-p.done:
		_ = c.Close()
	}
}

func (p *port) failed(c *portConn, err error) {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		p.stats.Timeout.Add(1)
	} else {
		p.stats.Malformed.Add(1)
	}
	p.cfg.Log.Debug("connection refused", logRemote, c.remote.String(), logError, err)
}

// count adds a connection to its address, unless the address has as many as it may.
func (p *port) count(c *portConn, addr netip.Addr) bool {
	if p.cfg.PerAddress <= 0 {
		return true
	}
	key := countKey(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts[key] >= p.cfg.PerAddress {
		return false
	}
	p.counts[key]++
	c.key = key
	return true
}

func (p *port) release(key netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts[key]--; p.counts[key] <= 0 {
		delete(p.counts, key)
	}
}

func (p *port) closed() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// close stops accepting and closes the connections that nobody has taken over. run returns after it.
func (p *port) close() {
	p.once.Do(func() {
		p.mu.Lock()
		close(p.done)
		for c := range p.pending {
			_ = c.Conn.Close()
		}
		p.mu.Unlock()
		_ = p.cfg.Listener.Close()
	})
}

// http is the port as the listener of an http.Server.
func (p *port) http() net.Listener { return (*httpListener)(p) }

type httpListener port

func (l *httpListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *httpListener) Close() error {
	(*port)(l).close()
	return nil
}

func (l *httpListener) Addr() net.Addr { return l.cfg.Listener.Addr() }

// countKey is the address itself, or for IPv6 the /64 that one host commands.
func countKey(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is6() {
		prefix, err := addr.WithZone("").Prefix(64)
		if err == nil {
			return prefix.Addr()
		}
	}
	return addr
}

// addrOf is the IP address of a TCP address, without the IPv4-in-IPv6 form; the zero Addr for another network.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

type secureKey struct{}

// connContext marks the requests of a connection that came over TLS, to us or to the proxy that says so.
func connContext(ctx context.Context, c net.Conn) context.Context {
	secure := false
	switch c := c.(type) {
	case *tls.Conn, *secureConn:
		secure = true
	case *portConn:
		secure = c.proxyTLS
	}
	return context.WithValue(ctx, secureKey{}, secure)
}
