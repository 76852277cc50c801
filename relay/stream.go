package relay

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// stream is one client over TCP or TLS.
type stream struct {
	server *Server
	conn   net.Conn
	client client
	alloc  atomic.Pointer[allocation]
	owner  atomic.Pointer[Owner] // of the first request that was authentic; nil: none was
	last   atomic.Int64          // when the last whole message came, nanoseconds since 1970; 0: none has

	framer framer // owned by the reader

	mu       sync.Mutex
	pending  []byte    // written, not yet taken by the writer
	spare    []byte    // the writer's last buffer, for the next turn
	writing  bool      // there is a writer
	finished bool      // the writer ends when nothing is pending
	endBy    time.Time // finished: when the writer ends in any case
	wake     chan struct{}
	written  chan struct{} // closed when the writer has ended
}

const (
	// maxPending bounds what waits for a client that reads slowly, in bytes; what does not fit is dropped.
	maxPending = 256 << 10
	// writePiece is written under one deadline, in bytes.
	writePiece = 32 << 10
	// keepBuffer is the largest buffer a writer keeps for later.
	keepBuffer = 16 << 10
)

// ServeStream serves TURN over a TCP or TLS connection until it ends, and closes it. It is called on a goroutine of the
// connection's own. The transport is TLS if the connection, or one it wraps and shows with NetConn, is.
func (s *Server) ServeStream(conn net.Conn) {
	st := &stream{server: s, conn: conn, wake: make(chan struct{}, 1), written: make(chan struct{})}
	st.client = client{transport: transportOf(conn), remote: addrPort(conn.RemoteAddr()), local: addrPort(conn.LocalAddr()), stream: st}
	if !s.streams.add(st, func() { s.running.Add(1) }) {
		s.counters.refuse(refusedConnections)
		conn.Close()
		return
	}
	defer s.running.Done()
	s.counters.streams[st.client.transport].Add(1)
	watch := newWatch(st, s.cfg.timing)

	st.read()

	watch.stop()
	if a := st.alloc.Load(); a != nil {
		s.finishAllocation(a)
	}
	st.finish()
	conn.Close()
	s.counters.streams[st.client.transport].Add(-1)
	s.streams.remove(st)
}

// read handles the client's messages until the stream ends or cannot be understood any more.
func (st *stream) read() {
	s := st.server
	for {
		n, err := st.conn.Read(st.framer.space())
		if err != nil {
			return
		}
		st.framer.filled(n)
		w := s.works.get()
		more := st.frames(w)
		s.works.put(w)
		if !more {
			return
		}
	}
}

// frames handles what has been read. It reports false if the stream must close.
func (st *stream) frames(w *work) bool {
	s := st.server
	for {
		b, err := st.framer.next()
		switch {
		case err != nil:
			s.counters.drop(dropMalformed)
			return false
		case b == nil:
			return true
		}
		st.last.Store(w.now.UnixNano())
		if looksLikeSTUN(b) {
			s.gate(w, &st.client, b)
		} else if a := st.alloc.Load(); a != nil {
			s.fromClient(w, a, b)
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

// send queues a copy of a message, or drops it if the client is too slow. It never waits.
func (st *stream) send(b []byte) {
	st.mu.Lock()
	if len(st.pending)+len(b) > maxPending {
		st.mu.Unlock()
		st.server.counters.drop(dropSlowClient)
		return
	}
	if st.finished {
		st.mu.Unlock()
		return
	}
	st.pending = append(st.pending, b...)
	if !st.writing {
		st.writing = true
		st.server.running.Go(st.write)
	}
	st.mu.Unlock()
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// write is the stream's writer, begun by the first message: all that waits goes out together.
func (st *stream) write() {
	defer close(st.written)
	for range st.wake {
		for {
			st.mu.Lock()
			b := st.pending
			st.pending, st.spare = st.spare[:0], nil
			over := st.finished && len(b) == 0
			st.mu.Unlock()
			if over {
				return
			}
			if len(b) == 0 {
				st.giveBack(b)
				break
			}
			if !st.put(b) {
				st.conn.Close()
				return
			}
			st.giveBack(b)
		}
	}
}

// put writes b in pieces. A client that does not take one of them for so long is gone, and the reader sees the connection
// close; one that takes what waits slowly only loses what does not fit behind it.
//
// Over TLS a piece, and so a record, is one message: there are clients (turnutils_uclient) that read a record at a time and
// look for one message in it.
func (st *stream) put(b []byte) bool {
	for len(b) > 0 {
		piece := b[:min(len(b), writePiece)]
		if size, err := frameSize(b); err == nil && size > 0 && st.client.transport == TLS {
			piece = b[:min(len(b), size)]
		}
		by := time.Now().Add(st.server.cfg.timing.write)
		st.mu.Lock()
		if st.finished {
			by = st.endBy
		}
		st.mu.Unlock()
		st.conn.SetWriteDeadline(by)
		if _, err := st.conn.Write(piece); err != nil {
			return false
		}
		b = b[len(piece):]
	}
	return true
}

// giveBack keeps a buffer for the next turn, if it is not one that only a burst needed.
func (st *stream) giveBack(b []byte) {
	if cap(b) > keepBuffer {
		return
	}
	st.mu.Lock()
	st.spare = b[:0]
	st.mu.Unlock()
}

// finish lets the writer send what is pending and waits for it.
func (st *stream) finish() {
	st.mu.Lock()
	st.finished, st.endBy = true, time.Now().Add(st.server.cfg.timing.write)
	writing := st.writing
	st.mu.Unlock()
	if !writing {
		return
	}
	select {
	case st.wake <- struct{}{}:
	default:
	}
	<-st.written
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
		st.conn.Close()
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
