package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"callbox/relay/internal/udp"
)

// ListenBuffer is what a listener asks of the kernel for datagrams not yet read, in bytes. More would only let them grow old: under
// a flood everybody waits behind a full buffer.
const ListenBuffer = 2 << 20

// listen opens one UDP address, as a group of sockets that share it where the system can. Within a group anybody of the same
// user could join, so a socket of its own tries the address first: a second server on the port fails.
func (s *Server) listen(addr netip.AddrPort) error {
	o := udp.Options{
		TellLocal:     addr.Addr().IsUnspecified(),
		ReceiveBuffer: ListenBuffer,
		TooLong:       &s.counters.tooLong,
	}
	group := 1
	if udp.ReusePort {
		group = max(runtime.GOMAXPROCS(0), len(s.shards))
	}
	first, err := udp.Listen(addr, o)
	if err != nil {
		return fmt.Errorf("UDP address %v: %w", addr, err)
	}
	if group == 1 && len(s.shards) == 0 {
		s.listeners = append(s.listeners, first)
		return nil
	}
	addr = netip.AddrPortFrom(addr.Addr(), first.LocalAddr().Port())
	first.Close()
	o.ReusePort = true
	for i := range group {
		var sh *shard
		if len(s.shards) > 0 {
			sh = s.shards[i%len(s.shards)]
		}
		c, err := openSocket(sh, addr, o)
		if err != nil {
			return fmt.Errorf("UDP address %v: %w", addr, err)
		}
		s.listeners = append(s.listeners, c)
	}
	if last := s.listeners[len(s.listeners)-1]; len(s.shards) > 1 {
		s.groups = append(s.groups, last)
	}
	return nil
}

// adopt takes over a socket that somebody else has bound. It is one, whatever the number of processors: nobody could join it.
func (s *Server) adopt(conn *net.UDPConn) error {
	c, err := udp.Adopt(conn, udp.Options{TellLocal: true, ReceiveBuffer: ListenBuffer, TooLong: &s.counters.tooLong})
	if err != nil {
		return fmt.Errorf("UDP socket %v: %w", conn.LocalAddr(), err)
	}
	s.listeners = append(s.listeners, c)
	return nil
}

// serve reads one socket until it is closed.
func (s *Server) serve(c *udp.Conn) error {
	if w := s.workOf(c); w != nil {
		return c.Start(func(p *udp.Packet) { s.datagram(w, c, p) })
	}
	s.running.Go(func() {
		s.readAll(c, s.closing, func(w *work, p *udp.Packet) { s.datagram(w, c, p) })
	})
	return nil
}

// readAll hands what comes to a socket to handle, until the socket is closed.
func (s *Server) readAll(c *udp.Conn, done <-chan struct{}, handle func(*work, *udp.Packet)) {
	for {
		b, err := c.Read(s.pool)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// A datagram's error, or none of some resource: neither is the socket's end.
			s.pause(done)
			continue
		}
		w := s.works.get()
		for i := range b.Packets {
			handle(w, &b.Packets[i])
		}
		s.works.put(w)
		s.pool.Put(b)
	}
}

// datagram handles one datagram of a client.
func (s *Server) datagram(w *work, conn *udp.Conn, p *udp.Packet) {
	local := conn.LocalAddr()
	if p.Local.IsValid() {
		local = netip.AddrPortFrom(p.Local, local.Port())
	}
	switch {
	case isChannelData(p.Data):
		if a := s.table.byFlow(flow{p.Peer, local}); a != nil {
			s.fromClient(w, a, p.Data)
		} else {
			s.counters.drop(dropNoAllocation)
		}
	case looksLikeSTUN(p.Data):
		s.gate(w, &client{transport: UDP, remote: p.Peer, local: local, conn: conn, from: p.Local}, p.Data)
	default:
		s.counters.drop(dropMalformed)
	}
}
