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

	// Owned by the loop's goroutine.
	since time.Time     // when the balance was last told
	busy  time.Duration // the loop's work until then
}

// openShards starts a shard for each processor, where the system can.
func (s *Server) openShards() {
	for i := range runtime.GOMAXPROCS(0) {
		sh := &shard{work: s.works.make()}
		var err error
		sh.loop, err = udp.NewLoop(&sh.work.out, func(now time.Time) {
			sh.work.now = now
			s.weigh(i, sh, now)
		}, sh.work.flushStreams)
		if err != nil {
			if !errors.Is(err, udp.ErrUnsupported) {
				s.cfg.Log.Warn("the relay goes on with a goroutine a socket, which takes more of the processor", keyError, err)
			}
			break
		}
		s.shards = append(s.shards, sh)
	}
	s.balance = newBalance(len(s.shards))
	for _, sh := range s.shards {
		s.running.Go(sh.loop.Run)
	}
}

// weigh tells the balance how busy a shard has been, now and then.
func (s *Server) weigh(i int, sh *shard, now time.Time) {
	d := now.Sub(sh.since)
	if d < balanceEvery {
		return
	}
	busy := sh.loop.Busy()
	share := float64(busy-sh.busy) / float64(d)
	sh.since, sh.busy = now, busy
	if gather, change := s.balance.told(i, share, now); change {
		s.gather(gather)
	}
}

// gather brings the clients of all listeners to the first shard, or spreads them over all.
func (s *Server) gather(on bool) {
	for _, group := range s.groups {
		if err := group.Gather(on); err != nil {
			s.cfg.Log.Debug("the shards share the load as the system does", keyError, err)
		}
	}
}

// shardOf finds the shard that a client's sockets belong to; nil: there are none.
func (s *Server) shardOf(c *client) *shard {
	if c.conn != nil {
		for _, sh := range s.shards {
			if sh.loop == c.conn.Loop() {
				return sh
			}
		}
	}
	if c.stream != nil && c.stream.shard != nil {
		return c.stream.shard
	}
	return s.nextShard()
}

// nextShard is where a client comes that is on none yet; nil: there are none.
func (s *Server) nextShard() *shard {
	if len(s.shards) == 0 {
		return nil
	}
	if s.balance.gathered() {
		return s.shards[0]
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
