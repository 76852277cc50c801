package relay

import (
	"net/netip"
	"sync"
	"time"

	"callbox/relay/internal/udp"
)

// client is the other end of a five-tuple. For UDP it is made for every datagram and kept only by an allocation.
type client struct {
	transport Transport
	remote    netip.AddrPort
	local     netip.AddrPort // ours, as the client reached it

	conn *udp.Conn  // UDP
	from netip.Addr // the address answers must leave from; invalid: the socket has but one

	stream *stream // TCP and TLS
}

func (c *client) flow() flow { return flow{c.remote, c.local} }

// send queues a message for the client. For UDP, b must stay as it is until the outbox is flushed.
func (c *client) send(w *work, b []byte) {
	if c.stream != nil {
		c.stream.send(w, b)
		return
	}
	w.out.Add(c.conn, b, c.remote, c.from)
}

// work is what one goroutine needs while it handles what one read brought: what to flush before the next read, and the time of
// the read.
type work struct {
	out     udp.Outbox
	streams []*stream // something is queued for them
	now     time.Time
}

// queued notes that something is queued for a stream.
func (w *work) queued(st *stream) {
	if n := len(w.streams); n == 0 || w.streams[n-1] != st {
		w.streams = append(w.streams, st)
	}
}

// flushStreams sends what was queued for streams.
func (w *work) flushStreams() {
	for i, st := range w.streams {
		st.out.Flush()
		w.streams[i] = nil
	}
	w.streams = w.streams[:0]
}

// works lends work, so that a waiting reader holds none.
type works struct {
	pool     sync.Pool
	counters *counters
}

func newWorks(c *counters) *works {
	p := &works{counters: c}
	p.pool.New = func() any { return p.make() }
	return p
}

func (p *works) make() *work {
	w := &work{}
	w.out.Failed = func(error) { p.counters.drop(dropSend) }
	return w
}

func (p *works) get() *work {
	w := p.pool.Get().(*work)
	w.now = time.Now()
	return w
}

// put flushes what is queued and takes the work back.
func (p *works) put(w *work) {
	w.flushStreams()
	w.out.Flush()
	p.pool.Put(w)
}
