package udp

import "net/netip"

const (
	// scratchSize bounds what an outbox builds by itself between two flushes.
	scratchSize = 64 << 10
	// outboxSize is how many datagrams wait at most.
	outboxSize = 64
	// lookBack is how many runs are looked at, newest first, for one that a datagram can join.
	lookBack = 16
	// A run is sent as one by the kernel (UDP GSO), which takes no more than this of it.
	maxSegments  = 64
	maxSegmented = 65000
)

// outgoing is one datagram waiting in an outbox.
type outgoing struct {
	data []byte
	next int // in its run; -1: it is the last
}

// run is datagrams from one socket to one address, in order: all of one size, but for the last, which may be shorter.
type run struct {
	conn        *Conn // nil: sent
	peer        netip.AddrPort
	local       netip.Addr
	first, last int // in the queue
	count       int
	size        int // of each but the last
	bytes       int // of all
	full        bool
}

// Outbox gathers datagrams and sends them when flushed or full. It keeps no copy: the data must stay as it is until Flush.
// It belongs to one goroutine.
type Outbox struct {
	// Failed is called for each datagram the system did not take. It may be nil.
	Failed func(error)

	queue   []outgoing
	runs    []run
	same    []int // the runs of one socket, for send
	scratch []byte
	used    int
	sys     outboxSys
}

// Add queues one datagram. local is the address it should leave from; invalid lets the system choose. Datagrams to one
// address keep their order, those to different ones need not.
func (o *Outbox) Add(c *Conn, data []byte, peer netip.AddrPort, local netip.Addr) {
	o.join(c, data, peer, local)
	if len(o.queue) == outboxSize {
		o.Flush() // now, not before the next: what that one lies in may be borrowed already
	}
}

// join puts a datagram into the newest run to its address, or begins another.
func (o *Outbox) join(c *Conn, data []byte, peer netip.AddrPort, local netip.Addr) {
	at := len(o.queue)
	o.queue = append(o.queue, outgoing{data: data, next: -1})
	for i := len(o.runs) - 1; i >= max(0, len(o.runs)-lookBack); i-- {
		r := &o.runs[i]
		if r.conn != c || r.peer != peer || r.local != local {
			continue
		}
		if r.full || len(data) > r.size || len(data) == 0 || r.count == maxSegments || r.bytes+len(data) > maxSegmented {
			break
		}
		o.queue[r.last].next = at
		r.last = at
		r.count++
		r.bytes += len(data)
		r.full = len(data) < r.size
		return
	}
	o.runs = append(o.runs, run{conn: c, peer: peer, local: local, first: at, last: at, count: 1, size: len(data), bytes: len(data)})
}

// Scratch lends n bytes, at most 64 KiB, for a datagram to be built in; they are the caller's until they
// are added and flushed. Nothing else may be added or flushed in between.
func (o *Outbox) Scratch(n int) []byte {
	if o.scratch == nil {
		o.scratch = make([]byte, scratchSize)
	}
	if o.used+n > len(o.scratch) {
		o.Flush()
	}
	b := o.scratch[o.used : o.used+n : o.used+n]
	o.used += n
	return b
}

// Flush sends everything and forgets it.
func (o *Outbox) Flush() {
	o.used = 0
	if len(o.queue) == 0 {
		return
	}
	for i := range o.runs {
		c := o.runs[i].conn
		if c == nil {
			continue
		}
		o.same = o.same[:0]
		for j := i; j < len(o.runs); j++ {
			if o.runs[j].conn == c {
				o.same = append(o.same, j)
			}
		}
		o.send(c, o.same)
		for _, j := range o.same {
			o.runs[j].conn = nil
		}
	}
	clear(o.queue)
	clear(o.runs)
	o.queue, o.runs = o.queue[:0], o.runs[:0]
}

// failed is told of n datagrams.
func (o *Outbox) failed(n int, err error) {
	for range n {
		if o.Failed != nil {
			o.Failed(err)
		}
	}
}
