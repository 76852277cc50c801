//go:build !linux

package udp

import (
	"errors"
	"net/netip"
	"syscall"
)

// One system call a datagram, through the net package alone. The address a datagram came to is not reported.

type (
	batchSys  struct{}
	connSys   struct{}
	outboxSys struct{}
)

func (*batchSys) init(*Batch) {}

func (c *Conn) init(Options) error { return nil }

func (c *Conn) close() error { return c.udp.Close() }

// errCut is Windows' error for a datagram longer than the buffer (WSAEMSGSIZE), a number that other systems do not use. Anybody
// can send one, so it is no reason for the reader to rest.
const errCut = syscall.Errno(10040)

// enlarge asks for a receive buffer; a smaller one than asked for is no fault.
func (c *Conn) enlarge(size int) { _ = c.udp.SetReadBuffer(size) }

func setReusePort(syscall.RawConn) error { return ErrUnsupported }

// ReusePort says whether several sockets can share one address and its load.
const ReusePort = false

// DontFragment says whether SetDontFragment works.
const DontFragment = false

// SetDontFragment asks that the datagrams sent from now on are never fragmented.
func (c *Conn) SetDontFragment(bool) error { return ErrUnsupported }

// Read waits for a datagram and returns a batch of the pool with it. After an error other than net.ErrClosed the socket can
// be read again.
func (c *Conn) Read(pool *Pool) (*Batch, error) {
	b := pool.get()
	for {
		n, _, _, peer, err := c.udp.ReadMsgUDPAddrPort(b.slots[0].slot[Headroom:], nil)
		if err != nil && !errors.Is(err, errCut) {
			pool.Put(b)
			return nil, err
		}
		if err != nil || n > MaxDatagram {
			c.tooLong.Add(1)
			continue
		}
		b.fill(0, n, peer, netip.Addr{})
		b.Packets = b.slots[:1]
		return b, nil
	}
}

func (o *Outbox) send(c *Conn, runs []int) {
	for _, r := range runs {
		for i := o.runs[r].first; i >= 0; i = o.queue[i].next {
			if _, err := c.udp.WriteToUDPAddrPort(o.queue[i].data, o.runs[r].peer); err != nil {
				o.failed(1, err)
			}
		}
	}
}
