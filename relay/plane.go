package relay

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"callbox/relay/internal/udp"
)

// The plane: data of allocations. A frame is a payload with four bytes before it that may be overwritten and with its padding
// behind it, which is the shape of a ChannelData message; so a payload is passed on without being moved.

const channelHeader = 4

// isChannelData tells a ChannelData message by its first byte: channels are 0x4000 to 0x4FFF (RFC 8656 section 12).
func isChannelData(b []byte) bool { return len(b) > 0 && b[0]&0xF0 == 0x40 }

// fromClient relays a ChannelData message. b has capacity for its padding.
func (s *Server) fromClient(w *work, a *allocation, b []byte) {
	if len(b) < channelHeader {
		s.counters.drop(dropMalformed)
		return
	}
	size := int(binary.BigEndian.Uint16(b[2:]))
	if size > len(b)-channelHeader {
		s.counters.drop(dropMalformed)
		return
	}
	c := a.channelOf(binary.BigEndian.Uint16(b), w.now)
	if c == nil {
		s.counters.drop(dropNoChannel)
		return
	}
	s.toPeer(w, a, c.peer, c.direct.Load(), b[:channelHeader+pad4(size)], size)
}

// toPeer sends a payload of the allocation's client on its way: into another allocation of this server, or out to the
// network if the policy allows it (direct).
func (s *Server) toPeer(w *work, a *allocation, peer netip.AddrPort, direct bool, frame []byte, size int) {
	r := a.relays[familyOf(peer.Addr())].Load()
	if r == nil {
		s.counters.drop(dropFamily)
		return
	}
	if why, ok := s.accounts.spend(a.account, size, w.now); !ok {
		s.counters.drop(why)
		return
	}
	if target := s.table.byRelayed(peer); target != nil {
		if s.toClient(w, target, r.addr, frame, size) {
			s.counters.inside.add(size)
			a.toPeers.add(size)
		}
		return
	}
	switch {
	case !direct:
		s.counters.drop(dropForbiddenPeer)
	case r.conn == nil:
		s.counters.drop(dropSealed)
	default:
		s.counters.toPeers.add(size)
		a.toPeers.add(size)
		w.out.Add(r.conn, frame[channelHeader:channelHeader+size], peer, netip.Addr{})
	}
}

// toClient hands a payload from a peer to the allocation's client, if the client wants it, and reports whether it did.
func (s *Server) toClient(w *work, a *allocation, peer netip.AddrPort, frame []byte, size int) bool {
	c, permitted := a.wayTo(peer, w.now)
	if !permitted {
		s.counters.drop(dropNoPermission)
		return false
	}
	if why, ok := s.accounts.spend(a.account, size, w.now); !ok {
		s.counters.drop(why)
		return false
	}
	a.toClient.add(size)
	if c == nil {
		a.client.send(w, dataIndication(w, peer, frame[channelHeader:channelHeader+size]))
		return true
	}
	binary.BigEndian.PutUint16(frame, c.number)
	binary.BigEndian.PutUint16(frame[2:], uint16(size))
	clear(frame[channelHeader+size:])
	a.client.send(w, frame)
	return true
}

// dataIndication builds a Data indication (RFC 8656 section 11.3) in the outbox's memory.
func dataIndication(w *work, peer netip.AddrPort, payload []byte) []byte {
	address := xorSize(peer.Addr())
	b := w.out.Scratch(stunHeader + 4 + address + 4 + pad4(len(payload)))
	binary.BigEndian.PutUint16(b, typeOf(methodData, classIndication))
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-stunHeader))
	binary.BigEndian.PutUint32(b[4:], magicCookie)
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	binary.BigEndian.PutUint32(b[16:], rand.Uint32())
	v := b[stunHeader:]
	binary.BigEndian.PutUint16(v, uint16(attrXORPeerAddress))
	binary.BigEndian.PutUint16(v[2:], uint16(address))
	putXOR(v[4:4+address], peer, b[8:stunHeader])
	v = v[4+address:]
	binary.BigEndian.PutUint16(v, uint16(attrData))
	binary.BigEndian.PutUint16(v[2:], uint16(len(payload)))
	n := copy(v[4:], payload)
	clear(v[4+n:])
	return b
}

// sendIndication relays the payload of a Send indication (RFC 8656 section 11.2). Nothing is answered, whatever it holds.
func (s *Server) sendIndication(w *work, c *client, m *message) {
	a := s.allocationOf(c)
	if a == nil {
		s.counters.drop(dropNoAllocation)
		return
	}
	value, found := m.get(attrXORPeerAddress)
	data, hasData := m.get(attrData)
	peer, ok := xorAddress(value, m.tx())
	if !found || !hasData || !ok || m.unknown() != nil {
		s.counters.drop(dropMalformed)
		return
	}
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	if !a.permitted(peer.Addr(), w.now) {
		s.counters.drop(dropNoPermission)
		return
	}
	// The attribute's own header is the frame's: four bytes that nobody needs any more.
	at := cap(m.raw) - cap(data) - channelHeader
	frame := m.raw[at : at+channelHeader+pad4(len(data))]
	if _, df := m.get(attrDontFragment); df {
		s.unfragmented(w, a, peer, frame, len(data))
		return
	}
	s.toPeer(w, a, peer, s.mayLeave(peer), frame, len(data))
}

// unfragmented is toPeer for one datagram that must not be fragmented. The socket is the client's reader's alone to send on.
func (s *Server) unfragmented(w *work, a *allocation, peer netip.AddrPort, frame []byte, size int) {
	r := a.relays[familyOf(peer.Addr())].Load()
	if r == nil || r.conn == nil {
		s.toPeer(w, a, peer, s.mayLeave(peer), frame, size)
		return
	}
	w.out.Flush()
	if err := r.conn.SetDontFragment(true); err != nil {
		s.counters.drop(dropSend)
		return
	}
	s.toPeer(w, a, peer, s.mayLeave(peer), frame, size)
	w.out.Flush()
	// A socket that cannot be set back is closed or closing.
	_ = r.conn.SetDontFragment(false)
}

// serveRelay passes on what peers send to one relayed address, until it closes.
func (s *Server) serveRelay(a *allocation, r *relayed) {
	if r == nil || r.conn == nil {
		return
	}
	if w := s.workOf(r.conn); w != nil {
		if err := r.conn.Start(func(p *udp.Packet) { s.fromPeer(w, a, p) }); err != nil && !errors.Is(err, net.ErrClosed) {
			s.cfg.Log.Error("a relayed address takes nothing in", keyError, err)
		}
		return
	}
	s.running.Go(func() {
		s.readAll(r.conn, a.ended, func(w *work, p *udp.Packet) { s.fromPeer(w, a, p) })
	})
}

func (s *Server) fromPeer(w *work, a *allocation, p *udp.Packet) {
	size := len(p.Data)
	if s.toClient(w, a, p.Peer, p.Framed()[:channelHeader+pad4(size)], size) {
		s.counters.toClients.add(size)
	}
}

// pauseTime is how long a reader waits after an error of its socket, such as one for want of memory.
const pauseTime = 10 * time.Millisecond

// pause waits a moment, or until done.
func (s *Server) pause(done <-chan struct{}) {
	t := time.NewTimer(pauseTime)
	defer t.Stop()
	select {
	case <-t.C:
	case <-done:
	case <-s.closing:
	}
}
