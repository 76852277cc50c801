package relay

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"callbox/relay/internal/udp"
)

// Keys of log records.
const keyError = "error"

// Server is a TURN server. It runs from Listen to Close.
type Server struct {
	cfg          Config
	addresses    addresses
	nonces       *nonces
	unauth       *prefixLimit
	bindings     *prefixLimit
	accounts     *accounts
	reservations *reservations
	table        *table
	pool         *udp.Pool
	works        *works
	counters     counters
	engines      []*engine
	shards       []*shard // none: every socket has a goroutine
	listeners    []*udp.Conn
	groups       []*udp.Conn // one of each group of listeners that the shards share
	balance      *balance
	streams      *streams

	complaints  bucket
	ids         atomic.Uint64
	revocations atomic.Uint64
	turn        atomic.Uint64 // whose turn it is among the shards
	draining    atomic.Bool
	forwarded   atomic.Pointer[PortRange] // nil: none

	closing chan struct{}
	closed  sync.Once
	running sync.WaitGroup // readers of listeners, streams and relays; Close waits for them
}

// bindingRate is how many more Binding requests than others are answered: their answers hardly amplify, and calls that need
// no relay depend on them.
const bindingRate = 10

// Listen opens the server's UDP addresses and serves when it returns.
func Listen(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg:      cfg,
		nonces:   newNonces(cfg.timing.nonce),
		unauth:   newPrefixLimit(cfg.Quota.UnauthRate, cfg.Quota.UnauthBurst),
		bindings: newPrefixLimit(bindingRate*cfg.Quota.UnauthRate, bindingRate*cfg.Quota.UnauthBurst),
		accounts: newAccounts(cfg.Quota),
		table:    newTable(),
		pool:     udp.NewPool(),
		closing:  make(chan struct{}),
	}
	s.works = newWorks(&s.counters)
	s.streams = newStreams(cfg.Quota.ConnectionsPerAddress)
	s.addresses.lack = cfg.lack
	s.addresses.set(cfg.Public)
	s.addresses.host(time.Now())
	s.reservations = &reservations{life: cfg.timing.reservation, open: make(map[[tokenSize]byte]*reservation), expire: s.unreserve}
	for range runtime.GOMAXPROCS(0) {
		e, err := newEngine()
		if err != nil {
			s.Close()
			return nil, err
		}
		s.engines = append(s.engines, e)
	}
	if !cfg.Portable {
		s.openShards()
	}
	for i, conn := range cfg.Handed {
		if err := s.adopt(conn); err != nil {
			for _, rest := range cfg.Handed[i:] {
				rest.Close()
			}
			s.Close()
			return nil, err
		}
	}
	for _, addr := range cfg.UDP {
		if err := s.listen(addr); err != nil {
			s.Close()
			return nil, err
		}
	}
	if len(s.shards) > 1 {
		s.gather(true)
	}
	for _, c := range s.listeners {
		if err := s.serve(c); err != nil {
			s.Close()
			return nil, fmt.Errorf("UDP address %v: %w", c.LocalAddr(), err)
		}
	}
	return s, nil
}

// Addr is the first UDP address, with the port that the system chose if none was named; invalid without one.
func (s *Server) Addr() netip.AddrPort {
	if len(s.listeners) == 0 {
		return netip.AddrPort{}
	}
	return s.listeners[0].LocalAddr()
}

// SetPublic changes the addresses that clients are told, from the next allocation on. A list that Config.Public would not
// take is logged and changes nothing. Peers are judged anew, as by PolicyChanged: what is our own depends on it.
func (s *Server) SetPublic(list []netip.Addr) {
	if err := checkPublic(list); err != nil {
		s.cfg.Log.Error("public addresses stay as they are", keyError, err)
		return
	}
	s.addresses.set(list)
	s.PolicyChanged()
}

// SetForwarded says which of Config.Ports a router forwards to this host: relayed IPv4 addresses get their ports from there
// first. The rest is used when those are taken, because two clients of this server meet on any port. The zero range: none.
func (s *Server) SetForwarded(r PortRange) {
	r.Low, r.High = max(r.Low, s.cfg.Ports.Low), min(r.High, s.cfg.Ports.High)
	if s.cfg.Ports.sealed() || r.Low == 0 || r.Low > r.High {
		s.forwarded.Store(nil)
		return
	}
	s.forwarded.Store(&r)
}

// PolicyChanged says that Config.AllowPeer answers otherwise from now on. What it denies is not sent to any more, on channels
// that were bound before either.
func (s *Server) PolicyChanged() {
	for _, a := range s.table.list() {
		a.judge(s.mayLeave)
	}
}

// Revoke ends the allocations and streams of the owners that match, before it returns, and says how many allocations there
// were. Config.Keys should refuse those owners by then, or they come again.
func (s *Server) Revoke(match func(Owner) bool) int {
	s.revocations.Add(1)
	n := 0
	for _, a := range s.table.list() {
		if !match(a.owner) {
			continue
		}
		n++
		s.finishAllocation(a)
	}
	s.streams.closeOwned(match)
	return n
}

// Drain refuses new allocations from now on. Those there are go on.
func (s *Server) Drain() { s.draining.Store(true) }

// Close ends every allocation and stream, closes every socket, and waits until nothing of the server runs.
func (s *Server) Close() error {
	s.closed.Do(func() {
		close(s.closing)
		s.streams.close()
		for _, c := range s.listeners {
			c.Close()
		}
		for _, e := range s.engines {
			e.Close()
		}
		for _, sh := range s.shards {
			sh.loop.Close()
		}
	})
	s.running.Wait()
	s.reservations.close() // after the last request that could make one
	return nil
}

// unreserve gives a reserved address back.
func (s *Server) unreserve(r *reservation) {
	s.table.release(r.relay)
	r.relay.close()
	s.accounts.give(r.account, 1, time.Now())
}

// allocationOf finds the live allocation of a client's five-tuple; nil: there is none.
func (s *Server) allocationOf(c *client) *allocation {
	if c.stream != nil {
		return c.stream.alloc.Load()
	}
	return s.table.byFlow(c.flow())
}

// mayPermit says whether a permission may name the peer. Permissions know no ports, so a relay of ours is allowed as an
// address, and each packet is judged when it leaves.
func (s *Server) mayPermit(peer netip.AddrPort) bool {
	if s.table.relaysAt(peer.Addr()) {
		return true
	}
	return !s.cfg.Ports.sealed() && s.allows(peer)
}

// allows asks the policy about a peer's address as it is written, and as what it reaches.
func (s *Server) allows(peer netip.AddrPort) bool {
	reached := canonical(peer.Addr())
	return s.cfg.AllowPeer(peer) && (reached == peer.Addr() || s.cfg.AllowPeer(netip.AddrPortFrom(reached, peer.Port())))
}

// mayLeave says whether a packet for the peer may go out to the network.
func (s *Server) mayLeave(peer netip.AddrPort) bool {
	return peer.Port() != 0 && s.allows(peer) && !s.own(netip.AddrPortFrom(canonical(peer.Addr()), peer.Port()))
}

// own says whether an address is one of callbox's own, which no rule opens.
func (s *Server) own(peer netip.AddrPort) bool {
	match := func(own netip.AddrPort) bool {
		if own.Port() != peer.Port() {
			return false
		}
		// A router in front turns the public address into one of the host's, so it reaches what listens on those too.
		public := s.addresses.public.Load()
		switch {
		case peer.Addr() == public[four], peer.Addr() == public[six]:
			return true
		case own.Addr().IsUnspecified():
			return s.addresses.host(time.Now()).has(peer.Addr())
		}
		return canonical(own.Addr()) == peer.Addr()
	}
	for _, own := range s.cfg.Own {
		if match(own) {
			return true
		}
	}
	for _, c := range s.listeners {
		if match(c.LocalAddr()) {
			return true
		}
	}
	return false
}
