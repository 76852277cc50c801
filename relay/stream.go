package relay

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"callbox/relay/internal/udp"
)

// stream is one client over TCP or TLS.
type stream struct {
	server *Server
	conn   net.Conn
	client client
	shard  *shard // that reads the connection; nil: a goroutine does
	out    outlet
	alloc  atomic.Pointer[allocation]
	owner  atomic.Pointer[Owner] // of the first request that was authentic; nil: none was
	last   atomic.Int64          // when the last whole message came, nanoseconds since 1970; 0: none has
}

// outlet is where messages for a stream's client go: a connection of a shard, or a sender.
type outlet interface {
	// Queue keeps a copy of b to be sent, unless more than most bytes would wait then. It never waits.
	Queue(b []byte, most int) bool
	// Flush sends what is queued, or sees to it. It never waits.
	Flush()
	// Shutdown ends the connection; the stream's reader sees it.
	Shutdown()
	// Close sends what is queued, if the client takes it, and closes the connection. The reader has ended.
	Close()
}

// ServeStream serves TURN over a TCP or TLS connection until it ends, and closes it. It is called on a goroutine of the
// connection's own. The transport is TLS if the connection, or one it wraps and shows with NetConn, is.
//
// On Linux shards read what is a *net.TCPConn, or a *tls.Conn over one after its handshake, if they can get at it. Whoever wraps one because it has looked
// at what came shows both with Unread() ([]byte, net.Conn): shards begin with the first and go on with the second. What lies under
// the *tls.Conn must have Swap(net.Conn) net.Conn besides, which puts another connection in the place of the one it wraps.
func (s *Server) ServeStream(conn net.Conn) {
	st := &stream{server: s, conn: conn}
	st.client = client{transport: transportOf(conn), remote: addrPort(conn.RemoteAddr()), local: addrPort(conn.LocalAddr()), stream: st}
	tcp, serve := st.join()
	if tcp == nil {
		st.out = newSender(conn, s.cfg.timing.write, st.client.transport == TLS, s.running.Go)
	}
	if !s.streams.add(st, func() { s.running.Add(1) }) {
		s.counters.refuse(refusedConnections)
		st.out.Close()
		conn.Close()
		return
	}
	defer s.running.Done()
	s.counters.streams[st.client.transport].Add(1)
	watch := newWatch(st, s.cfg.timing)

	if tcp != nil {
		st.readInShard(tcp, serve)
	} else {
		st.read()
	}

	watch.stop()
	if a := st.alloc.Load(); a != nil {
		s.finishAllocation(a)
	}
	st.out.Close()
	conn.Close()
	s.counters.streams[st.client.transport].Add(-1)
	s.streams.remove(st)
}

// unreader is a wrapped connection that somebody has looked at; see ServeStream.
type unreader interface{ Unread() ([]byte, net.Conn) }

// swapper is one that another connection can be put under.
type swapper interface{ Swap(net.Conn) net.Conn }

// join gives the connection to a shard, if there is one that can have it: serve says what it is to do. tcp is nil if not.
func (st *stream) join() (tcp *udp.TCP, serve udp.Service) {
	sh := st.server.nextShard()
	if sh == nil {
		return nil, serve
	}
	first, bare := unread(st.conn)
	session, secret := bare.(*tls.Conn)
	var under swapper
	if secret {
		if !session.ConnectionState().HandshakeComplete {
			return nil, serve // a handshake cannot be gone on with after a deadline
		}
		var ok bool
		if under, ok = session.NetConn().(swapper); !ok {
			return nil, serve
		}
		var early []byte
		if early, bare = unread(session.NetConn()); len(early) > 0 {
			return nil, serve
		}
	}
	conn, ok := bare.(*net.TCPConn)
	if !ok {
		return nil, serve
	}
	tcp, err := sh.loop.Take(conn)
	if err != nil {
		return nil, serve
	}
	st.shard, st.out = sh, tcp
	serve = udp.Service{
		First:    first,
		Handle:   func(b []byte) ([]byte, bool) { return st.frames(sh.work, b) },
		Patience: st.server.cfg.timing.write,
	}
	if secret {
		o := secure(session, under, tcp, func() { sh.work.queued(st) })
		st.out, serve.Through = o, o
	}
	return tcp, serve
}

// unread looks under a connection's wrapper, if it has one that says what it has read.
func unread(c net.Conn) ([]byte, net.Conn) {
	if u, ok := c.(unreader); ok {
		return u.Unread()
	}
	return nil, c
}

// readInShard has the shard handle the client's messages, and waits until the stream ends.
func (st *stream) readInShard(tcp *udp.TCP, serve udp.Service) {
	ended := make(chan struct{})
	serve.Ended = func() { close(ended) }
	if err := tcp.Start(serve); err != nil {
		return // the server closes, or the kernel has no memory
	}
	<-ended
}

// read handles the client's messages until the stream ends or cannot be understood any more.
func (st *stream) read() {
	s := st.server
	var f framer
	for {
		n, err := st.conn.Read(f.space())
		if n == 0 && err != nil { // with the last bytes it comes again
			return
		}
		f.filled(n)
		w := s.works.get()
		rest, more := st.frames(w, f.unread())
		f.left(len(rest))
		s.works.put(w)
		if !more {
			return
		}
	}
}

// frames handles the messages that b holds whole and returns what is left. It reports false if the stream must close.
func (st *stream) frames(w *work, b []byte) (rest []byte, ok bool) {
	s := st.server
	for {
		frame, rest, err := cut(b)
		switch {
		case err != nil:
			s.counters.drop(dropMalformed)
			return rest, false
		case frame == nil:
			return rest, true
		}
		b = rest
		st.last.Store(w.now.UnixNano())
		if looksLikeSTUN(frame) {
			s.gate(w, &st.client, frame)
		} else if a := st.alloc.Load(); a != nil {
			s.fromClient(w, a, frame)
		} else {
			s.counters.drop(dropNoAllocation)
		}
	}
}

// authenticated notes whose stream this is.
func (st *stream) authenticated(o Owner) {
	if st.owner.Load() == nil {
		st.owner.Store(&o)
	}
}

// send queues a copy of a message, to leave when the work is flushed at the latest, or drops it if the client is too slow.
func (st *stream) send(w *work, b []byte) {
	if !st.out.Queue(b, maxPending) {
		st.out.Flush() // this round may have brought all of it
		if !st.out.Queue(b, maxPending) {
			st.server.counters.drop(dropSlowClient)
			return
		}
	}
	w.queued(st)
}

// watch closes a stream that keeps a connection for nothing: no first message, or neither messages nor an allocation.
type watch struct {
	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

func newWatch(st *stream, t timing) *watch {
	w := &watch{}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(t.firstRequest, func() { w.look(st, t) })
	return w
}

func (w *watch) look(st *stream, t timing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	last := st.last.Load()
	idle := time.Since(time.Unix(0, last))
	switch {
	case st.alloc.Load() != nil:
		w.timer.Reset(t.idle) // the allocation's own lifetime watches it
	case last == 0 || idle >= t.idle:
		st.out.Shutdown()
	default:
		w.timer.Reset(t.idle - idle)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// transportOf looks for TLS through the wrappers of a connection.
func transportOf(c net.Conn) Transport {
	for range 8 {
		switch t := c.(type) {
		case interface{ ConnectionState() tls.ConnectionState }:
			return TLS
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return TCP
		}
	}
	return TCP
}

// addrPort reads an address of a connection; one that is not IP is unspecified.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	if a != nil {
		if p, err := netip.ParseAddrPort(a.String()); err == nil {
			return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
		}
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}
