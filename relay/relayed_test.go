package relay

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

var (
	loopbackFour = netip.MustParseAddr("127.0.0.1")
	loopbackSix  = netip.MustParseAddr("::1")
	asksSix      = attr(stun.AttrRequestedAddressFamily, wireSix, 0, 0, 0)
	asksBoth     = attr(0x8000, wireSix, 0, 0, 0)
)

// relayedAddresses lists all of an answer's.
func relayedAddresses(t testing.TB, m *stun.Message) []netip.AddrPort {
	t.Helper()
	var list []netip.AddrPort
	err := m.ForEach(stun.AttrXORRelayedAddress, func(m *stun.Message) error {
		var x stun.XORMappedAddress
		if err := x.GetFromAs(m, stun.AttrXORRelayedAddress); err != nil {
			return err
		}
		ip, _ := netip.AddrFromSlice(x.IP)
		list = append(list, netip.AddrPortFrom(ip.Unmap(), uint16(x.Port)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func hasSix(t *testing.T) {
	t.Helper()
	if !new(addresses).host(time.Now()).has(loopbackSix) {
		t.Skip("this host has no IPv6")
	}
}

func TestDataBothWays(t *testing.T) {
	hasSix(t)
	both(t, allowLoopback, func(t *testing.T, s *testServer, network string) {
		for _, row := range []struct {
			family stun.Setter
			peer   string
		}{
			{attr(stun.AttrRequestedAddressFamily, wireFour, 0, 0, 0), "127.0.0.1:0"},
			{asksSix, "[::1]:0"},
		} {
			to := echo(t, row.peer).AddrPort()
			w := dial(t, s, network)
			relayed := w.allocate(row.family)
			if relayed.Addr() != to.Addr() {
				t.Fatalf("relayed address %v", relayed)
			}
			w.succeed(stun.MethodCreatePermission, xorPeer(to))
			for _, size := range []int{0, 1, 2, 3, 4, 1200, 8000} {
				data := random(size)
				w.sendTo(to, data)
				if from, got := w.data(); from != to || string(got) != string(data) {
					t.Fatalf("%d bytes came back as %d from %v", size, len(got), from)
				}
			}
			w.succeed(stun.MethodChannelBind, channelNumber(0x4001), xorPeer(to))
			for _, size := range []int{0, 1, 2, 3, 4, 1200, 8000} {
				data := random(size)
				w.send(channelData(0x4001, data))
				if got := w.onChannel(0x4001); string(got) != string(data) {
					t.Fatalf("%d bytes came back as %d", size, len(got))
				}
			}
			w.code(w.do(stun.MethodChannelBind, channelNumber(0x4001), xorPeer(netip.AddrPortFrom(to.Addr(), 9))), 400)
			w.code(w.do(stun.MethodChannelBind, channelNumber(0x4002), xorPeer(to)), 400)
			w.succeed(stun.MethodChannelBind, channelNumber(0x4001), xorPeer(to))
		}
	})
}

// TestBetweenAllocations sends between two clients of one server, over every pair of transports, with and without sockets.
func TestBetweenAllocations(t *testing.T) {
	for _, ports := range []PortRange{{49152, 65535}, {}} {
		name := "sealed"
		if !ports.sealed() {
			name = "open"
		}
		t.Run(name, func(t *testing.T) {
			planes(t, func(c *Config) { c.Ports = ports }, betweenAllocations)
		})
	}
}

func betweenAllocations(t *testing.T, change func(*Config)) {
	s := newServer(t, change)
	{
		for _, pair := range [][2]string{{"udp", "udp"}, {"udp", "tcp"}, {"tcp", "udp"}, {"tcp", "tcp"}} {
			t.Run(pair[0]+" to "+pair[1], func(t *testing.T) {
				a, b := dial(t, s, pair[0]), dial(t, s, pair[1]).as("1:bob")
				ra, rb := a.allocate(), b.allocate()
				before := s.Stats()

				a.succeed(stun.MethodCreatePermission, xorPeer(rb))
				a.sendTo(rb, []byte("nobody asked"))
				a.alive() // the indication is through
				if s.Stats().Drops["no-permission"] != before.Drops["no-permission"]+1 {
					t.Fatal("delivered without the receiver's permission")
				}

				b.succeed(stun.MethodCreatePermission, xorPeer(ra))
				a.sendTo(rb, []byte("indication"))
				if from, data := b.data(); from != ra || string(data) != "indication" {
					t.Fatalf("%q from %v", data, from)
				}
				b.succeed(stun.MethodChannelBind, channelNumber(0x4100), xorPeer(ra))
				a.sendTo(rb, []byte("to a channel"))
				if data := b.onChannel(0x4100); string(data) != "to a channel" {
					t.Fatalf("%q", data)
				}
				a.succeed(stun.MethodChannelBind, channelNumber(0x4200), xorPeer(rb))
				a.send(channelData(0x4200, []byte("channel to channel")))
				if data := b.onChannel(0x4100); string(data) != "channel to channel" {
					t.Fatalf("%q", data)
				}
				b.send(channelData(0x4100, []byte("and back")))
				if data := a.onChannel(0x4200); string(data) != "and back" {
					t.Fatalf("%q", data)
				}
				eventually(t, "four packets are counted", func() bool { return s.Stats().Inside.Packets == before.Inside.Packets+4 })
				if after := s.Stats(); after.ToPeers != before.ToPeers {
					t.Fatalf("to peers %+v", after.ToPeers)
				}
			})
		}
	}
}

func TestSealedRelayReachesNobodyElse(t *testing.T) {
	both(t, func(c *Config) { allowLoopback(c); c.Ports = PortRange{} }, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		relayed := w.allocate()
		w.code(w.do(stun.MethodCreatePermission, peer("8.8.8.8:53")), 403)
		w.code(w.do(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.8.8:53")), 403)
		// The address is virtual: anybody can have its port.
		pc, err := net.ListenPacket("udp", relayed.String())
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		w.succeed(stun.MethodCreatePermission, xorPeer(relayed))
		w.sendTo(netip.AddrPortFrom(relayed.Addr(), s.Addr().Port()), []byte("out"))
		w.alive()
		st := s.Stats()
		if st.ToPeers.Packets != 0 || st.Drops["forbidden-peer"]+st.Drops["sealed"] != 1 {
			t.Fatalf("%+v", st)
		}
	})
}

func TestEveryPacketIsCheckedByPort(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		victim := echo(t, "127.0.0.1:0").AddrPort()
		w := dial(t, s, network)
		relayed := w.allocate()
		w.succeed(stun.MethodCreatePermission, xorPeer(relayed)) // permissions know no ports
		w.sendTo(victim, []byte("inwards"))
		w.sendTo(s.Addr(), []byte("inwards"))
		w.sendTo(netip.AddrPortFrom(victim.Addr(), 0), []byte("inwards"))
		w.alive()
		if st := s.Stats(); st.Drops["forbidden-peer"] != 3 || st.ToPeers.Packets != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

func TestOwnAddressesAreNeverOpened(t *testing.T) {
	redis := echo(t, "127.0.0.1:0").AddrPort()
	both(t, func(c *Config) { allowLoopback(c); c.Own = []netip.AddrPort{redis} }, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		w.allocate()
		for _, own := range []netip.AddrPort{redis, s.Addr()} {
			w.code(w.do(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(own)), 403)
			w.succeed(stun.MethodCreatePermission, xorPeer(own))
			before := s.Stats().Drops["forbidden-peer"]
			w.sendTo(own, []byte("inwards"))
			w.alive()
			if s.Stats().Drops["forbidden-peer"] != before+1 {
				t.Fatalf("a packet left for %v", own)
			}
		}
	})
}

// TestOwnPortsAreNotReachedThroughTheRouter: behind a router that maps the public address to the host's, both are the listener.
func TestOwnPortsAreNotReachedThroughTheRouter(t *testing.T) {
	public := netip.MustParseAddr("8.8.4.4")
	both(t, func(c *Config) { c.Public = []netip.Addr{public} }, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		w.allocate()
		own := netip.AddrPortFrom(public, s.Addr().Port())
		w.code(w.do(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(own)), 403)
		w.succeed(stun.MethodCreatePermission, xorPeer(own))
		w.sendTo(own, []byte("inwards"))
		w.alive()
		if st := s.Stats(); st.Drops["forbidden-peer"] != 1 || st.ToPeers.Packets != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

// TestPolicyThatChangesHoldsForChannels that were bound before it changed.
func TestPolicyThatChangesHoldsForChannels(t *testing.T) {
	var denied atomic.Bool
	both(t, func(c *Config) {
		denied.Store(false)
		c.AllowPeer = func(netip.AddrPort) bool { return !denied.Load() }
	}, func(t *testing.T, s *testServer, network string) {
		denied.Store(false)
		to := echo(t, "127.0.0.1:0").AddrPort()
		w := dial(t, s, network)
		w.allocate()
		w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(to))
		w.send(channelData(0x4000, []byte("before")))
		if got := w.onChannel(0x4000); string(got) != "before" {
			t.Fatalf("%q", got)
		}
		denied.Store(true)
		s.PolicyChanged()
		w.send(channelData(0x4000, []byte("after")))
		w.alive()
		if st := s.Stats(); st.Drops["forbidden-peer"] != 1 || st.ToPeers.Packets != 1 {
			t.Fatalf("%+v", st)
		}
	})
}

func TestDualAllocation(t *testing.T) {
	hasSix(t)
	both(t, allowLoopback, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		m := w.succeed(stun.MethodAllocate, transportUDP, asksBoth)
		relayed := relayedAddresses(t, m)
		if len(relayed) != 2 || relayed[0].Addr() != loopbackFour || relayed[1].Addr() != loopbackSix {
			t.Fatalf("relayed addresses %v", relayed)
		}
		if again := relayedAddresses(t, w.ask(m2(w, m))); len(again) != 0 {
			t.Fatalf("a second allocation: %v", again)
		}
		for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
			to := echo(t, at).AddrPort()
			w.succeed(stun.MethodCreatePermission, xorPeer(to))
			w.sendTo(to, []byte(at))
			if from, data := w.data(); from != to || string(data) != at {
				t.Fatalf("%q from %v", data, from)
			}
		}
		if st := s.Stats(); st.Allocations[AllocationKind{transportNamed(network), 4}] != 1 || st.Allocations[AllocationKind{transportNamed(network), 6}] != 1 {
			t.Fatalf("%+v", st.Allocations)
		}
		// Half of it goes, the other half stays.
		w.succeed(stun.MethodRefresh, lifetime(0), asksSix)
		w.code(w.do(stun.MethodCreatePermission, peer("[::1]:9")), 443)
		w.code(w.do(stun.MethodRefresh, asksSix), 443)
		w.succeed(stun.MethodRefresh)
		eventuallyFree(t, relayed[1])
		w.succeed(stun.MethodRefresh, lifetime(0), attr(stun.AttrRequestedAddressFamily, wireFour, 0, 0, 0))
		w.code(w.do(stun.MethodRefresh), 437)
	})
}

// TestHalfIsRefreshedAlone: the other half ends when it would have (RFC 8656 section 8.1).
func TestHalfIsRefreshedAlone(t *testing.T) {
	hasSix(t)
	both(t, allowLoopback, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		start := time.Now()
		relayed := relayedAddresses(t, w.succeed(stun.MethodAllocate, transportUDP, asksBoth))
		a := s.table.byRelayed(relayed[0])
		ends := func() (four, six time.Duration) {
			a.ends.mu.Lock()
			defer a.ends.mu.Unlock()
			return a.ends.until[0].Sub(start).Truncate(10 * time.Minute), a.ends.until[1].Sub(start).Truncate(10 * time.Minute)
		}
		w.succeed(stun.MethodRefresh, lifetime(3600), asksSix)
		if f, s := ends(); f != 10*time.Minute || s != time.Hour {
			t.Fatalf("IPv4 ends after %v, IPv6 after %v", f, s)
		}
		w.succeed(stun.MethodRefresh, lifetime(1800))
		if f, s := ends(); f != 30*time.Minute || s != 30*time.Minute {
			t.Fatalf("IPv4 ends after %v, IPv6 after %v", f, s)
		}
		// The first half's time is over early.
		a.endHalf(four, time.Now().Add(time.Millisecond))
		eventually(t, "the half is gone", func() bool { return s.table.byRelayed(relayed[0]) == nil })
		w.code(w.do(stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, wireFour, 0, 0, 0)), 443)
		w.succeed(stun.MethodRefresh, asksSix)
		eventuallyFree(t, relayed[0])
	})
}

// TestHalfOfAnEndedAllocationIsNotGivenBackTwice: its address may be another's by then.
func TestHalfOfAnEndedAllocationIsNotGivenBackTwice(t *testing.T) {
	tab := newTable()
	at := [2]netip.AddrPort{netip.MustParseAddrPort("8.8.8.8:50000"), netip.MustParseAddrPort("[2600::1]:50000")}
	open := func() *allocation {
		a := &allocation{}
		for f, addr := range at {
			if !tab.hold(addr) {
				t.Fatalf("%v is taken", addr)
			}
			a.relays[f].Store(&relayed{addr: addr})
		}
		if !tab.add(a) {
			t.Fatal("not added")
		}
		return a
	}
	a := open()
	if r := tab.removeHalf(a, six); r == nil || tab.byRelayed(at[six]) != nil || tab.byRelayed(at[four]) != a {
		t.Fatal("not half of it")
	}
	tab.remove(a)
	b := open()
	if r := tab.removeHalf(a, four); r != nil || tab.byRelayed(at[four]) != b || tab.byRelayed(at[six]) != b {
		t.Fatal("another's address is gone")
	}
}

// m2 is the same request as was answered, in a transaction of its own.
func m2(w *wire, _ *stun.Message) *stun.Message {
	return w.signed(stun.MethodAllocate, transportUDP, asksBoth)
}

func transportNamed(network string) Transport {
	if network == "udp" {
		return UDP
	}
	return TCP
}

func TestMissingFamily(t *testing.T) {
	const all family = -1
	for _, row := range []struct {
		asks stun.Setter
		lack family
		want int
	}{{asksSix, six, 440}, {asksBoth, six, 0}, {asksBoth, four, 0}, {asksBoth, all, 508}, {attr(0x8032, wireSix, 0, 0, 0), six, 0}} {
		both(t, func(c *Config) { c.lack = func(f family) bool { return f == row.lack || row.lack == all } }, func(t *testing.T, s *testServer, network string) {
			w := dial(t, s, network)
			m := w.do(stun.MethodAllocate, transportUDP, row.asks)
			if row.want != 0 {
				w.code(m, row.want)
				return
			}
			if got := relayedAddresses(t, m); len(got) != 1 || familyOf(got[0].Addr()) == row.lack {
				t.Fatalf("relayed addresses %v", got)
			}
			if got := w.text(m, 0x8001); got != string([]byte{row.lack.wire(), 0, 4, 40}) {
				t.Fatalf("ADDRESS-ERROR-CODE % x", got)
			}
		})
	}
}

func TestSetPublicIsUsedByTheNextAllocation(t *testing.T) {
	both(t, func(c *Config) { c.Public = []netip.Addr{netip.MustParseAddr("198.51.100.1")} }, func(t *testing.T, s *testServer, network string) {
		a, b := dial(t, s, network), dial(t, s, network)
		ra := a.allocate()
		s.SetPublic([]netip.Addr{netip.MustParseAddr("198.51.100.2")})
		rb := b.allocate()
		if ra.Addr().String() != "198.51.100.1" || rb.Addr().String() != "198.51.100.2" {
			t.Fatalf("%v, then %v", ra, rb)
		}
		// Both know each other by what they were told.
		a.succeed(stun.MethodCreatePermission, xorPeer(rb))
		b.succeed(stun.MethodCreatePermission, xorPeer(ra))
		a.sendTo(rb, []byte("hello"))
		if from, data := b.data(); from != ra || string(data) != "hello" {
			t.Fatalf("%q from %v", data, from)
		}
		s.SetPublic([]netip.Addr{{}})
		if c := dial(t, s, network).allocate(); c.Addr() != rb.Addr() {
			t.Fatalf("%v after a list that is none", c)
		}
	})
}
