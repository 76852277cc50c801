package relay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/pion/stun/v2"
	"github.com/pion/turn/v3"
)

// The same packets go through bare pion and through this server: what comes to the clients and to the peers must be the same.

// world is one server with two clients and three peers.
type world struct {
	testing.TB
	name    string
	addr    string
	clients [2]*wire
	relayed [2]netip.AddrPort // invalid: no allocation
	peers   [3]*net.UDPConn
	revoke  func(client int)
}

var worldUsers = [2]string{"1:alice", "1:bob"} // does not change

func newWorld(t testing.TB, name, addr string) *world {
	t.Helper()
	w := &world{TB: t, name: name, addr: addr}
	for i := range w.clients {
		w.redial(i)
	}
	t.Cleanup(func() {
		for _, c := range w.clients {
			c.conn.Close()
		}
	})
	for i := range w.peers {
		pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		w.peers[i] = pc
	}
	return w
}

// redial gives a client another address. pion's reader of an allocation that has ended ends whatever has the same five-tuple by then.
func (w *world) redial(i int) {
	w.Helper()
	if old := w.clients[i]; old != nil {
		old.conn.Close()
	}
	c, err := net.Dial("udp", w.addr)
	if err != nil {
		w.Fatal(err)
	}
	w.clients[i] = (&wire{TB: w.TB, conn: c}).as(worldUsers[i])
	w.relayed[i] = netip.AddrPort{}
}

// ours is this server.
func ours(t testing.TB, portable bool) *world {
	s := newServer(t, func(c *Config) { allowLoopback(c); c.Portable = portable; c.Quota.UnauthRate = -1 })
	w := newWorld(t, "ours", s.Addr().String())
	w.revoke = func(i int) {
		_, user, _ := bytes.Cut([]byte(worldUsers[i]), []byte(":"))
		if n := s.Revoke(func(o Owner) bool { return o.User == string(user) }); n != 1 {
			t.Fatalf("%d allocations revoked", n)
		}
	}
	return w
}

// pions is pion alone.
func pions(t testing.TB) *world {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := turn.NewServer(turn.ServerConfig{
		Realm:         "callbox",
		LoggerFactory: silence{},
		AuthHandler: func(username, realm string, _ net.Addr) ([]byte, bool) {
			return keyFor(username, realm, password(username)), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            pc,
			RelayAddressGenerator: &turn.RelayAddressGeneratorNone{Address: "127.0.0.1"},
			PermissionHandler:     func(net.Addr, net.IP) bool { return true },
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	w := newWorld(t, "pion", pc.LocalAddr().String())
	w.revoke = func(i int) { w.clients[i].succeed(stun.MethodRefresh, lifetime(0)) }
	return w
}

func (w *world) peer(i int) netip.AddrPort {
	return w.peers[i].LocalAddr().(*net.UDPAddr).AddrPort()
}

// atPeer waits for a packet at a peer and says from whose relay it came; none must be there where wait is short.
func (w *world) atPeer(i int, wait time.Duration) string {
	w.Helper()
	b := make([]byte, 2048)
	w.peers[i].SetReadDeadline(time.Now().Add(wait))
	n, from, err := w.peers[i].ReadFromUDPAddrPort(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "nothing"
	}
	if err != nil {
		w.Fatal(err)
	}
	for c, relayed := range w.relayed {
		if from == relayed {
			return fmt.Sprintf("from client %d: % x", c, b[:n])
		}
	}
	return fmt.Sprintf("from %v, nobody's relay: % x", from, b[:n])
}

// atClient is atPeer for a client.
func (w *world) atClient(i int, wait time.Duration) string {
	w.Helper()
	b, err := w.clients[i].tryReceive(wait)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "nothing"
	}
	if err != nil {
		w.Fatal(err)
	}
	if isChannelData(b) {
		return fmt.Sprintf("% x", b)
	}
	m := w.clients[i].decode(b)
	if m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) {
		return m.Type.String()
	}
	from := w.clients[i].address(m, stun.AttrXORPeerAddress)
	for p := range w.peers {
		if from == w.peer(p) {
			return fmt.Sprintf("from peer %d: % x", p, w.clients[i].text(m, stun.AttrData))
		}
	}
	return fmt.Sprintf("from %v, nobody's address: % x", from, w.clients[i].text(m, stun.AttrData))
}

// rules is what RFC 8656 lets pass, for as long as nothing expires.
type rules struct {
	allocated bool
	permitted bool // all peers have one address
	channels  map[uint16]int
}

// A packet that is due is waited for; that none comes is believed after a moment.
const (
	dueWait   = 10 * time.Second
	noneWait  = 3 * time.Millisecond
	channels  = 3
	mostSteps = 24
)

// play lets both worlds take the same steps.
func play(t testing.TB, worlds []*world, script []byte) {
	t.Helper()
	var r [2]rules
	for step, op := range script[:min(len(script), mostSteps)] {
		client, peer, number := int(op>>3&1), int(op>>4)%3, minChannel+uint16(op>>6)%channels
		mine := &r[client]
		all := func(f func(w *world)) {
			for _, w := range worlds {
				f(w)
			}
		}
		wait := func(due bool) time.Duration {
			if due {
				return dueWait
			}
			return noneWait
		}
		same := func(what string, due bool, f func(w *world, wait time.Duration) string) {
			t.Helper()
			var first string
			for i, w := range worlds {
				got := f(w, wait(due))
				if (got != "nothing") != due {
					t.Fatalf("step %d of % x, %s: %s got %s, due %v", step, script, what, w.name, got, due)
				}
				if i == 0 {
					first = got
				} else if got != first {
					t.Fatalf("step %d of % x, %s: %s got %s, %s %s", step, script, what, worlds[0].name, first, w.name, got)
				}
			}
		}
		payload := bytes.Repeat([]byte{byte(step), op}, 1+int(op)%9)
		payload = payload[:len(payload)-int(op)%2]
		bound, isBound := mine.channels[number]
		switch op & 7 {
		case 0:
			if !mine.allocated {
				*mine = rules{allocated: true, channels: map[uint16]int{}}
				all(func(w *world) { w.relayed[client] = w.clients[client].allocate() })
			}
		case 1:
			taken := false
			for n, p := range mine.channels {
				taken = taken || n != number && p == peer
			}
			if mine.allocated && !taken && (!isBound || bound == peer) {
				mine.channels[number], mine.permitted = peer, true
				all(func(w *world) {
					w.clients[client].succeed(stun.MethodChannelBind, channelNumber(number), xorPeer(w.peer(peer)))
				})
			}
		case 2:
			if mine.allocated {
				mine.permitted = true
				all(func(w *world) { w.clients[client].succeed(stun.MethodCreatePermission, xorPeer(w.peer(peer))) })
			}
		case 3:
			all(func(w *world) { w.clients[client].send(channelData(number, payload)) })
			same("ChannelData", isBound, func(w *world, wait time.Duration) string { return w.atPeer(bound, wait) })
		case 4:
			all(func(w *world) { w.clients[client].sendTo(w.peer(peer), payload) })
			same("Send", mine.permitted, func(w *world, wait time.Duration) string { return w.atPeer(peer, wait) })
		case 5:
			if mine.allocated {
				all(func(w *world) {
					if _, err := w.peers[peer].WriteToUDPAddrPort(payload, w.relayed[client]); err != nil {
						t.Fatal(err)
					}
				})
				same("from the peer", mine.permitted, func(w *world, wait time.Duration) string { return w.atClient(client, wait) })
			}
		case 6:
			if mine.allocated {
				all(func(w *world) { w.clients[client].succeed(stun.MethodRefresh, lifetime(700)) })
			}
		case 7:
			if mine.allocated {
				*mine = rules{}
				all(func(w *world) {
					if op&0x80 == 0 {
						w.clients[client].succeed(stun.MethodRefresh, lifetime(0))
					} else {
						w.revoke(client)
					}
					w.redial(client)
				})
			}
		}
	}
	// What is left over would be somebody's who comes next.
	for _, w := range worlds {
		for i := range r {
			if r[i].allocated {
				w.clients[i].succeed(stun.MethodRefresh, lifetime(0))
				w.redial(i)
			}
		}
	}
}

func TestPlaneDoesAsPionDoes(t *testing.T) {
	planes(t, nil, func(t *testing.T, change func(*Config)) {
		var c Config
		change(&c)
		worlds := []*world{pions(t), ours(t, c.Portable)}
		for range 60 {
			script := make([]byte, mostSteps)
			for i := range script {
				script[i] = byte(rand.Uint32())
			}
			script[0], script[1] = 0, 8 // both allocate
			play(t, worlds, script)
		}
	})
}

func FuzzPlane(f *testing.F) {
	f.Add([]byte{0, 8, 1, 9, 3, 11, 4, 5, 13, 7, 3, 5})
	f.Add([]byte{0, 0x51, 0x53, 0x55, 0x87, 0x53, 0, 0x53, 0x55})
	worlds := []*world{pions(f), ours(f, false)}
	f.Fuzz(func(t *testing.T, script []byte) {
		for _, w := range worlds {
			w.TB = t
			for _, c := range w.clients {
				c.TB = t
			}
		}
		play(t, worlds, script)
	})
}
