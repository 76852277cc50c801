package relay

import (
	"errors"
	"net/netip"
	"runtime"
	"time"

	"callbox/relay/internal/udp"
)

// shard is a part of the plane that one goroutine serves: a socket of each listener, and the relay sockets of the clients that
// come in there. What one wait brings is handled and sent before the next.
type shard struct {
	loop *udp.Loop
	work *work
}

// openShards starts a shard for each processor, where the system can.
func (s *Server) openShards() {
	for range runtime.GOMAXPROCS(0) {
		w := s.works.make()
		loop, err := udp.NewLoop(&w.out, func() { w.now = time.Now() }, func() {})
		if err != nil {
			if !errors.Is(err, udp.ErrUnsupported) {
				s.cfg.Log.Warn("the relay goes on with a goroutine a socket, which takes more of the processor", keyError, err)
			}
			return
		}
		s.shards = append(s.shards, &shard{loop, w})
		s.running.Go(loop.Run)
	}
}

// shardOf finds the shard that a client's sockets belong to; nil: there are none.
func (s *Server) shardOf(c *client) *shard {
	if len(s.shards) == 0 {
		return nil
	}
	if c.conn != nil {
		for _, sh := range s.shards {
			if sh.loop == c.conn.Loop() {
				return sh
			}
		}
	}
	return s.shards[s.turn.Add(1)%uint64(len(s.shards))]
}

// openSocket opens a UDP socket on a shard, or one with a reader of its own where sh is nil.
func openSocket(sh *shard, addr netip.AddrPort, o udp.Options) (*udp.Conn, error) {
	if sh == nil {
		return udp.Listen(addr, o)
	}
	return sh.loop.Listen(addr, o)
}

// workOf is the work of the shard that a socket belongs to; nil: it has a reader of its own.
func (s *Server) workOf(c *udp.Conn) *work {
	for _, sh := range s.shards {
		if sh.loop == c.Loop() {
			return sh.work
		}
	}
	return nil
}
