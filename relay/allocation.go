package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"callbox/relay/internal/udp"
)

// Lifetimes of RFC 8656 section 3.2 (allocations), 9 (permissions) and 12 (channels).
const (
	defaultLifetime    = 10 * time.Minute
	maxLifetime        = time.Hour
	permissionLifetime = 5 * time.Minute
	channelLifetime    = 10 * time.Minute
)

// allocation is one client's allocation: to pion a relay socket, to the plane the tables of where data may go. It lives as
// long as pion keeps it.
type allocation struct {
	server   *Server
	engine   *engine
	client   client
	username string
	key      []byte // that of the credential it was made with; its later requests are checked against it
	owner    Owner
	account  *account
	created  time.Time
	tuple    *net.UDPAddr // how pion knows it: an invented address, different for each
	tx       [txSize]byte // of the Allocate request
	granted  time.Duration
	token    []byte        // RESERVATION-TOKEN of the answer, if there was one
	missing  [2]int        // ADDRESS-ERROR-CODE of the answer by family; 0: none
	ended    chan struct{} // closed with it
	end      sync.Once

	toPeers, toClient counter

	dead   atomic.Bool
	relays [2]atomic.Pointer[relayed] // by family; nil: none
	ends   halves

	// mu guards the rest. No other lock is taken under it.
	mu          sync.RWMutex
	permissions map[netip.Addr]int64 // peer to its expiry, a tick
	byNumber    map[uint16]*channel
	byPeer      map[netip.AddrPort]*channel
}

// relayed is one relayed transport address of an allocation.
type relayed struct {
	addr netip.AddrPort // as clients know it
	conn *udp.Conn      // nil: virtual
}

// channel is one channel of an allocation. Number and peer do not change.
type channel struct {
	number  uint16
	peer    netip.AddrPort
	direct  atomic.Bool  // the policy lets packets for the peer out to the network
	expires atomic.Int64 // a tick
}

func tupleOf(id uint64) *net.UDPAddr {
	ip := make(net.IP, net.IPv6len)
	ip[0] = 0xFD
	binary.BigEndian.PutUint64(ip[8:], id)
	return &net.UDPAddr{IP: ip, Port: 1}
}

// ReadFrom is where pion waits for data from peers. The plane keeps that to itself; pion hears only of the end.
func (a *allocation) ReadFrom([]byte) (int, net.Addr, error) {
	defer a.server.running.Done()
	<-a.ended
	return 0, nil, net.ErrClosed
}

// WriteTo is never reached: Send indications and ChannelData do not go to pion.
func (a *allocation) WriteTo([]byte, net.Addr) (int, error) { return 0, net.ErrClosed }

// Close is pion's word that the allocation is over.
func (a *allocation) Close() error {
	a.end.Do(func() {
		a.dead.Store(true)
		a.stopHalves()
		a.server.forget(a)
		close(a.ended)
		for f := range a.relays {
			a.relays[f].Load().close()
		}
	})
	return nil
}

func (r *relayed) close() {
	if r != nil && r.conn != nil {
		r.conn.Close()
	}
}

// LocalAddr is the invented address.
func (a *allocation) LocalAddr() net.Addr { return a.tuple }

// The deadlines of a PacketConn, which pion does not use.
func (a *allocation) SetDeadline(time.Time) error      { return nil }
func (a *allocation) SetReadDeadline(time.Time) error  { return nil }
func (a *allocation) SetWriteDeadline(time.Time) error { return nil }

// permitted says whether the peer may send to the client.
func (a *allocation) permitted(peer netip.Addr, now time.Time) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.permissions[peer] > tick(now)
}

// wayTo says whether the peer may send to the client, and finds the live channel on which the client gets it; nil: there is
// none. A permission ends before its channel does, and without one nothing comes in (RFC 8656 sections 11.3 and 12.7).
func (a *allocation) wayTo(peer netip.AddrPort, now time.Time) (c *channel, permitted bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.permissions[peer.Addr()] <= tick(now) {
		return nil, false
	}
	if c = a.byPeer[peer]; c != nil && c.expires.Load() <= tick(now) {
		c = nil
	}
	return c, true
}

// channelOf finds the live channel of a number.
func (a *allocation) channelOf(number uint16, now time.Time) *channel {
	a.mu.RLock()
	c := a.byNumber[number]
	a.mu.RUnlock()
	if c == nil || c.expires.Load() <= tick(now) {
		return nil
	}
	return c
}

// room says whether the peers fit beside the live permissions. Expired ones are thrown out when space is short.
func (a *allocation) room(peers []netip.AddrPort, limit int, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := 0
	for i, p := range peers {
		_, known := a.permissions[p.Addr()]
		for _, q := range peers[:i] {
			known = known || q.Addr() == p.Addr()
		}
		if !known {
			fresh++
		}
	}
	if len(a.permissions)+fresh > limit {
		for p, expires := range a.permissions {
			if expires <= tick(now) {
				delete(a.permissions, p)
				// A peer of this request may be among them; it is fresh then.
				for _, q := range peers {
					if q.Addr() == p {
						fresh++
						break
					}
				}
			}
		}
	}
	return len(a.permissions)+fresh <= limit
}

// roomForChannel is room for one channel.
func (a *allocation) roomForChannel(number uint16, limit int, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byNumber[number] == nil && len(a.byNumber) >= limit {
		for n, c := range a.byNumber {
			if c.expires.Load() <= tick(now) {
				a.drop(n, c)
			}
		}
	}
	return a.byNumber[number] != nil || len(a.byNumber) < limit
}

// drop removes a channel; the caller holds mu.
func (a *allocation) drop(number uint16, c *channel) {
	delete(a.byNumber, number)
	if a.byPeer[c.peer] == c {
		delete(a.byPeer, c.peer)
	}
}

// permit installs or refreshes permissions, counted from when the request came, so that they end before pion's.
func (a *allocation) permit(peers []netip.AddrPort, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.permissions == nil {
		a.permissions = make(map[netip.Addr]int64, len(peers))
	}
	for _, p := range peers {
		a.permissions[p.Addr()] = tick(now.Add(permissionLifetime))
	}
}

// bind installs or refreshes a channel that pion has accepted.
func (a *allocation) bind(number uint16, peer netip.AddrPort, direct bool, now time.Time) {
	a.permit([]netip.AddrPort{peer}, now)
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.byNumber[number]
	if c == nil || c.peer != peer {
		// pion has forgotten what stood in the way.
		if c != nil {
			a.drop(number, c)
		}
		if old := a.byPeer[peer]; old != nil {
			a.drop(old.number, old)
		}
		if a.byNumber == nil {
			a.byNumber = make(map[uint16]*channel)
			a.byPeer = make(map[netip.AddrPort]*channel)
		}
		c = &channel{number: number, peer: peer}
		a.byNumber[number] = c
		a.byPeer[peer] = c
	}
	c.direct.Store(direct)
	c.expires.Store(tick(now.Add(channelLifetime)))
}

// judge asks the policy about the peers of all channels anew.
func (a *allocation) judge(mayLeave func(netip.AddrPort) bool) {
	a.mu.RLock()
	list := make([]*channel, 0, len(a.byNumber))
	for _, c := range a.byNumber {
		list = append(list, c)
	}
	a.mu.RUnlock()
	for _, c := range list {
		c.direct.Store(mayLeave(c.peer))
	}
}
