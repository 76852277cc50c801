package udp

import (
	"net/netip"
	"sync"
)

const (
	// MaxDatagram is the longest datagram a Batch can hold; longer ones are dropped and counted, never cut.
	MaxDatagram = 9216
	// Headroom is how many bytes before a received datagram its holder may write to, so that a header can be put in front
	// of a payload without moving it.
	Headroom = 4
	// tailroom lets a holder pad a datagram to a multiple of four, and shows a datagram longer than MaxDatagram.
	tailroom = 4
	// BatchSize is how many datagrams one read brings at most.
	BatchSize = 32
)

// Packet is one received datagram.
type Packet struct {
	Data  []byte         // the datagram; its capacity has at least 3 bytes to spare
	Peer  netip.AddrPort // where it came from; never an IPv4-mapped address
	Local netip.Addr     // the address of ours it came to; invalid where the system does not say

	slot []byte // the whole buffer; Data starts at Headroom
}

// Framed is the datagram with the Headroom bytes before it. The slice shares memory with Data.
func (p *Packet) Framed() []byte { return p.slot[:Headroom+len(p.Data)] }

// Batch is the memory for what one read brings. Packets is valid until the batch is released.
type Batch struct {
	Packets []Packet

	slots [BatchSize]Packet
	sys   batchSys
}

// Pool hands out batches. A reader takes one only when its socket has something to read, so idle sockets hold no memory.
type Pool struct{ p sync.Pool }

// NewPool makes an empty pool.
func NewPool() *Pool {
	return &Pool{p: sync.Pool{New: func() any { return newBatch() }}}
}

func (p *Pool) get() *Batch { return p.p.Get().(*Batch) }

// Put gives a batch back; nothing may point into it any more.
func (p *Pool) Put(b *Batch) {
	b.Packets = nil
	p.p.Put(b)
}

func newBatch() *Batch {
	const size = Headroom + MaxDatagram + tailroom
	b := &Batch{}
	memory := make([]byte, BatchSize*size)
	for i := range b.slots {
		b.slots[i].slot = memory[i*size : (i+1)*size : (i+1)*size]
	}
	b.sys.init(b)
	return b
}

// fill makes slot i of the batch a received packet of n bytes.
func (b *Batch) fill(i, n int, peer netip.AddrPort, local netip.Addr) {
	p := &b.slots[i]
	p.Data = p.slot[Headroom : Headroom+n]
	p.Peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	p.Local = local.Unmap()
}
