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

// randomTries is how often a port is drawn at random before the range is walked through.
const randomTries = 32

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
	size := int(ports.High) - int(ports.Low) + 1
	start := mathrand.IntN(size)
	for try := range randomTries + size {
		offset := mathrand.IntN(size)
		if try >= randomTries {
			offset = (start + try) % size
		}
		port := ports.Low + uint16(offset)
		if k.even && port%2 != 0 || k.reserve && port == ports.High {
			continue
		}
		relay, err := s.bindRelay(netip.AddrPortFrom(advertised, port), bind)
		if err == nil && k.reserve {
			if above, err = s.bindRelay(netip.AddrPortFrom(advertised, port+1), bind); err != nil {
				s.table.release(relay)
				relay.close()
			}
		}
		switch {
		case err == nil:
			return relay, above, 0
		case !errors.Is(err, errPortTaken):
			if s.complaints.take(complaintEvery, complaintEvery, now) {
				s.cfg.Log.Warn("no relay port could be opened; is the limit of open files high enough?", keyError, err)
			}
			return nil, nil, codeInsufficientCapacity
		}
	}
	return nil, nil, codeInsufficientCapacity
}

var errPortTaken = errors.New("port is taken")

// bindRelay takes one relayed address. It is bound before anybody hears of it and never let go in between.
func (s *Server) bindRelay(advertised netip.AddrPort, bind netip.Addr) (*relayed, error) {
	r := &relayed{addr: advertised}
	if !s.table.hold(advertised) {
		return nil, errPortTaken
	}
	if s.cfg.Ports.sealed() {
		return r, nil
	}
	conn, err := udp.Listen(netip.AddrPortFrom(bind, advertised.Port()), udp.Options{OneFamily: true, TooLong: &s.counters.tooLong})
	if err != nil {
		s.table.release(r)
		if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
			return nil, errPortTaken
		}
		return nil, err
	}
	r.conn = conn
	return r, nil
}

// reservation is a relayed address kept for its token's holder.
type reservation struct {
	relay    *relayed
	account  *account
	username string
	timer    *time.Timer
}

// reservations are the ports kept by EVEN-PORT. Their sockets stay bound, so nobody can come in between.
type reservations struct {
	life   time.Duration
	expire func(*reservation)

	mu   sync.Mutex
	open map[[tokenSize]byte]*reservation
}

func (s *reservations) add(relay *relayed, account *account, username string) []byte {
	var token [tokenSize]byte
	rand.Read(token[:])
	r := &reservation{relay: relay, account: account, username: username}
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

// claim gives the user the reservation of a token; nil: there is none, or it is another user's.
func (s *reservations) claim(token []byte, username string) *reservation {
	key := [tokenSize]byte(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.open[key]
	if r == nil || r.username != username {
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
