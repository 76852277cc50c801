package udp

import "net/netip"

// scratchSize bounds what an outbox builds by itself between two flushes.
const scratchSize = 64 << 10

// outgoing is one datagram waiting in an outbox.
type outgoing struct {
	conn  *Conn
	data  []byte
	peer  netip.AddrPort
	local netip.Addr
}

// Outbox gathers datagrams and sends them when flushed or full. It keeps no copy: the data must stay as it is until Flush.
// It belongs to one goroutine.
type Outbox struct {
	// Failed is called for each datagram the system did not take. It may be nil.
	Failed func(error)

	queue   []outgoing
	scratch []byte
	used    int
	sys     outboxSys
}

// Add queues one datagram. local is the address it should leave from; invalid lets the system choose.
func (o *Outbox) Add(c *Conn, data []byte, peer netip.AddrPort, local netip.Addr) {
	o.queue = append(o.queue, outgoing{conn: c, data: data, peer: peer, local: local})
	if len(o.queue) == BatchSize {
		o.Flush() // now, not before the next: what that one lies in may be borrowed already
	}
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

// Flush sends everything, in order for each socket, and forgets it.
func (o *Outbox) Flush() {
	o.used = 0
	for start := 0; start < len(o.queue); {
		end := start + 1
		for end < len(o.queue) && o.queue[end].conn == o.queue[start].conn {
			end++
		}
		o.send(o.queue[start].conn, o.queue[start:end])
		start = end
	}
	clear(o.queue)
	o.queue = o.queue[:0]
}

func (o *Outbox) failed(err error) {
	if o.Failed != nil {
		o.Failed(err)
	}
}
