package relay

import (
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"callbox/relay/internal/udp"
)

// tokenSize is that of RESERVATION-TOKEN, RFC 8656 section 18.9.
const tokenSize = 8

// virtualPorts are what a sealed relay draws from.
var virtualPorts = PortRange{Low: 1024, High: 65535} // does not change

// bindTries is how many ports are tried for one allocation: those that other programs hold are not known before.
const bindTries = 64

// complaintEvery is how often the log says that relay ports cannot be opened.
const complaintEvery = time.Minute

// openRelay opens a relayed address of a family for the client, and the one above it where the request asks to reserve it.
// code is that of the error; 0: none.
func (s *Server) openRelay(f family, c client, k ask, now time.Time) (relay, above *relayed, code int) {
	advertised, bind, ok := s.addresses.choose(f, c.local.Addr(), now)
	if !ok {
		return nil, nil, codeFamilyNotSupported
	}
	ports := s.cfg.Ports
	if ports.sealed() {
		ports = virtualPorts
	}
	sh := s.shardOf(&c)
	if within := s.forwarded.Load(); within != nil && f == four && !s.cfg.Ports.sealed() {
		if relay, above, code = s.openWithin(sh, *within, advertised, bind, k, now); code == 0 {
			return relay, above, 0
		}
	}
	return s.openWithin(sh, ports, advertised, bind, k, now)
}

// openWithin is openRelay within a range of ports.
func (s *Server) openWithin(sh *shard, ports PortRange, advertised, bind netip.Addr, k ask, now time.Time) (relay, above *relayed, code int) {
	from := ports.Low + uint16(mathrand.IntN(int(ports.High)-int(ports.Low)+1))
	for range bindTries {
		port, found := s.table.holdFree(advertised, ports, from, k.even, k.reserve)
		if !found {
			return nil, nil, codeInsufficientCapacity
		}
		relay, above = &relayed{addr: netip.AddrPortFrom(advertised, port)}, nil
		err := s.bindRelay(sh, relay, bind)
		if k.reserve {
			above = &relayed{addr: netip.AddrPortFrom(advertised, port+1)}
			if err == nil {
				err = s.bindRelay(sh, above, bind)
			}
		}
		if err == nil {
			return relay, above, 0
		}
		s.table.release(relay, above)
		relay.close()
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
			if s.complaints.take(complaintEvery, complaintEvery, now) {
				s.cfg.Log.Warn("no relay port could be opened; is the limit of open files high enough?", keyError, err)
			}
			return nil, nil, codeInsufficientCapacity
		}
		if from = port + 1; from < ports.Low || from > ports.High {
			from = ports.Low
		}
	}
	return nil, nil, codeInsufficientCapacity
}

// bindRelay opens the socket of a relayed address that is held. It is bound before anybody hears of it and never let go in between.
func (s *Server) bindRelay(sh *shard, r *relayed, bind netip.Addr) (err error) {
	if s.cfg.Ports.sealed() {
		return nil
	}
	r.conn, err = openSocket(sh, netip.AddrPortFrom(bind, r.addr.Port()), udp.Options{OneFamily: true, TooLong: &s.counters.tooLong})
	return err
}

// reservation is a relayed address kept for its token's holder.
type reservation struct {
	relay   *relayed
	account *account
	timer   *time.Timer
}

// reservations are the ports kept by EVEN-PORT. Their sockets stay bound, so nobody can come in between.
type reservations struct {
	life   time.Duration
	expire func(*reservation)

	mu   sync.Mutex
	open map[[tokenSize]byte]*reservation
}

func (s *reservations) add(relay *relayed, account *account) []byte {
	var token [tokenSize]byte
	rand.Read(token[:])
	r := &reservation{relay: relay, account: account}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[token] = r
	r.timer = time.AfterFunc(s.life, func() {
		if s.take(token) == r {
			s.expire(r)
		}
	})
	return token[:]
}

// claim gives an account the reservation of a token; nil: there is none, or it is another's.
func (s *reservations) claim(token []byte, account string) *reservation {
	key := [tokenSize]byte(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.open[key]
	if r == nil || r.account.name != account {
		return nil
	}
	delete(s.open, key)
	r.timer.Stop()
	return r
}

func (s *reservations) take(token [tokenSize]byte) *reservation {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.open[token]
	delete(s.open, token)
	return r
}

// close ends every reservation.
func (s *reservations) close() {
	s.mu.Lock()
	list := s.open
	s.open = make(map[[tokenSize]byte]*reservation)
	s.mu.Unlock()
	for _, r := range list {
		r.timer.Stop()
		s.expire(r)
	}
}
