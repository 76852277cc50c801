package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestRevokeEndsAllocationsAndStreams(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		alice, bob := dial(t, s, network), dial(t, s, network).as("1:bob")
		ra := alice.allocate()
		bob.allocate()
		if n := s.Revoke(func(o Owner) bool { return o.Session == "s-alice" }); n != 1 {
			t.Fatalf("%d allocations ended", n)
		}
		if n := len(s.Allocations()); n != 1 {
			t.Fatalf("%d allocations are left", n)
		}
		eventuallyFree(t, ra)
		if network == "tcp" {
			alice.closed()
		} else {
			alice.code(alice.do(stun.MethodRefresh), 437)
		}
		bob.succeed(stun.MethodRefresh)
	})
}

func TestRevokeClosesStreamsWithoutAllocation(t *testing.T) {
	s := newServer(t, nil)
	w := dial(t, s, "tcp")
	w.code(w.do(stun.MethodRefresh), 437)
	stranger := dial(t, s, "tcp")
	stranger.alive()
	s.Revoke(func(o Owner) bool { return true })
	w.closed()
	stranger.alive()
}

// TestRevokeMeetsAnAllocationOnItsWay revokes after the credential was found good and before the allocation is there.
func TestRevokeMeetsAnAllocationOnItsWay(t *testing.T) {
	var server atomic.Pointer[testServer]
	var revoked atomic.Bool
	s := newServer(t, func(c *Config) {
		c.Keys = func(username, realm string, allocate bool) ([][]byte, Owner, error) {
			if revoked.Swap(true) {
				return nil, Owner{}, errUnknown
			}
			return testKeys(username, realm, allocate)
		}
		c.lack = func(family) bool { // asked while the allocation is opened
			server.Load().Revoke(func(Owner) bool { return true })
			return false
		}
	})
	server.Store(s)
	w := dial(t, s, "udp")
	w.code(w.do(stun.MethodAllocate, transportUDP), 401)
	if n := len(s.Allocations()); n != 0 {
		t.Fatalf("%d allocations", n)
	}
}

// TestRevokeMeetsACredentialJustFoundGood revokes when Config.Keys has decided and not yet answered.
func TestRevokeMeetsACredentialJustFoundGood(t *testing.T) {
	var server atomic.Pointer[testServer]
	var revoked atomic.Bool
	s := newServer(t, func(c *Config) {
		c.Keys = func(username, realm string, allocate bool) ([][]byte, Owner, error) {
			if revoked.Swap(true) {
				return nil, Owner{}, errUnknown
			}
			server.Load().Revoke(func(Owner) bool { return true })
			return testKeys(username, realm, allocate)
		}
	})
	server.Store(s)
	w := dial(t, s, "udp")
	w.code(w.do(stun.MethodAllocate, transportUDP), 401)
	if n := len(s.Allocations()); n != 0 {
		t.Fatalf("%d allocations", n)
	}
}

// TestCloseMeetsAReservationOnItsWay closes the server while a request that reserves a port is being authenticated.
func TestCloseMeetsAReservationOnItsWay(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	s := newServer(t, func(c *Config) {
		c.Keys = func(username, realm string, allocate bool) ([][]byte, Owner, error) {
			close(arrived)
			<-release
			return testKeys(username, realm, allocate)
		}
	})
	w := dial(t, s, "udp")
	w.send(w.signed(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80)).Raw)
	<-arrived
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	eventually(t, "the engines close", func() bool {
		select {
		case <-s.engines[len(s.engines)-1].closed:
			return true
		default:
			return false
		}
	})
	close(release)
	<-closed
	s.reservations.mu.Lock()
	open := len(s.reservations.open)
	s.reservations.mu.Unlock()
	s.table.mu.Lock()
	held := len(s.table.relayed)
	s.table.mu.Unlock()
	if open != 0 || held != 0 {
		t.Fatalf("%d reservations and %d relayed addresses are left", open, held)
	}
}

func TestDrain(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		old := dial(t, s, network)
		old.allocate()
		s.Drain()
		w := dial(t, s, network)
		w.code(w.do(stun.MethodAllocate, transportUDP), 508)
		old.succeed(stun.MethodRefresh)
		old.succeed(stun.MethodCreatePermission, peer("8.8.8.8:1"))
	})
}

func TestSecondServerOnThePortFails(t *testing.T) {
	s := newServer(t, nil)
	if other, err := Listen(Config{UDP: []netip.AddrPort{s.Addr()}, Keys: testKeys}); err == nil {
		other.Close()
		t.Fatal("two servers on one port")
	}
}

func TestConfigurationFaultsAreReportedTogether(t *testing.T) {
	_, err := Listen(Config{
		UDP: []netip.AddrPort{{}}, Ports: PortRange{5, 4}, Public: []netip.Addr{netip.IPv4Unspecified()},
	})
	var list interface{ Unwrap() []error }
	if !errors.Is(err, ErrConfig) || !errors.As(err, &list) || len(list.Unwrap()) != 4 {
		t.Fatal(err)
	}
}

func TestCloseFreesEverything(t *testing.T) {
	s, err := Listen(Config{UDP: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Ports: PortRange{49152, 65535}, Keys: testKeys})
	if err != nil {
		t.Fatal(err)
	}
	a, b := tcpPair(t)
	go s.ServeStream(b)
	w := (&wire{TB: t, conn: a, tcp: true}).as("1:alice")
	m := w.succeed(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80))
	relayed := w.address(m, stun.AttrXORRelayedAddress)
	s.Close()
	s.Close()
	w.closed()
	for _, addr := range []netip.AddrPort{s.Addr(), relayed, netip.AddrPortFrom(relayed.Addr(), relayed.Port()+1)} {
		eventuallyFree(t, addr)
	}
	if n := len(s.Allocations()); n != 0 {
		t.Fatalf("%d allocations", n)
	}
	c, d := tcpPair(t)
	s.ServeStream(d)
	(&wire{TB: t, conn: c, tcp: true}).closed()
}

// TestAnswersLeaveFromTheAddressAsked asks a wildcard listener at two addresses of the host.
func TestAnswersLeaveFromTheAddressAsked(t *testing.T) {
	for _, at := range []string{"0.0.0.0:0", "[::]:0"} {
		s := newServer(t, func(c *Config) { allowLoopback(c); c.UDP = []netip.AddrPort{netip.MustParseAddrPort(at)} })
		for _, local := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
			addr := netip.MustParseAddr(local)
			if addr.Is6() && (s.Addr().Addr().Is4() || !new(addresses).host(time.Now()).has(addr)) || local == "127.0.0.2" && !onLinux {
				continue
			}
			t.Run(at+" at "+local, func(t *testing.T) {
				// A connected socket takes nothing from any other address.
				c, err := net.Dial("udp", netip.AddrPortFrom(addr, s.Addr().Port()).String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				w := (&wire{TB: t, conn: c}).as("1:alice")
				w.alive()
				to := echo(t, "127.0.0.1:0").AddrPort()
				w.allocate(attr(stun.AttrRequestedAddressFamily, wireFour, 0, 0, 0))
				w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(to))
				w.send(channelData(0x4000, []byte("data")))
				if got := w.onChannel(0x4000); string(got) != "data" {
					t.Fatalf("%q", got)
				}
			})
		}
	}
}
