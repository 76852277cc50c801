package relay

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

func TestEvenPort(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		if p := w.allocate(attr(stun.AttrEvenPort, 0)).Port(); p%2 != 0 {
			t.Fatalf("port %d", p)
		}
	})
}

func TestReservedPortIsHeldForItsOwner(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		m := w.succeed(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80))
		first := w.address(m, stun.AttrXORRelayedAddress)
		token := attr(stun.AttrReservationToken, []byte(w.text(m, stun.AttrReservationToken))...)
		above := netip.AddrPortFrom(first.Addr(), first.Port()+1)
		if pc, err := net.ListenPacket("udp", above.String()); err == nil {
			pc.Close()
			t.Fatal("the reserved port is free for others")
		}
		bob := dial(t, s, network).as("1:bob")
		bob.code(bob.do(stun.MethodAllocate, transportUDP, token), 508)
		second := dial(t, s, network).as("2:alice") // the same user with a newer credential
		if got := second.allocate(token); got != above {
			t.Fatalf("%v, then %v", first, got)
		}
		third := dial(t, s, network)
		third.code(third.do(stun.MethodAllocate, transportUDP, token), 508)
	})
}

func TestReservationRunsOut(t *testing.T) {
	both(t, func(c *Config) { c.timing.reservation = time.Millisecond; c.Quota.Allocations = 2 }, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		m := w.succeed(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80))
		first := w.address(m, stun.AttrXORRelayedAddress)
		eventuallyFree(t, netip.AddrPortFrom(first.Addr(), first.Port()+1))
		late := dial(t, s, network)
		late.code(late.do(stun.MethodAllocate, transportUDP, attr(stun.AttrReservationToken, []byte(w.text(m, stun.AttrReservationToken))...)), 508)
		eventually(t, "its quota is free too", func() bool {
			s.accounts.mu.Lock()
			defer s.accounts.mu.Unlock()
			return s.accounts.total == 1
		})
		late.allocate()
	})
}

func TestPortsRunOut(t *testing.T) {
	both(t, func(c *Config) { c.Ports = PortRange{50000, 50003} }, func(t *testing.T, s *testServer, network string) {
		seen := map[uint16]bool{}
		var last *wire
		for range 4 {
			last = dial(t, s, network)
			p := last.allocate().Port()
			if p < 50000 || p > 50003 || seen[p] {
				t.Fatalf("port %d after %v", p, seen)
			}
			seen[p] = true
		}
		w := dial(t, s, network)
		w.code(w.do(stun.MethodAllocate, transportUDP), 508)
		last.succeed(stun.MethodRefresh, lifetime(0))
		w.allocate()
	})
}

func TestForwardedPortsAreGivenOutFirst(t *testing.T) {
	both(t, func(c *Config) { c.Ports = PortRange{50100, 50107} }, func(t *testing.T, s *testServer, network string) {
		take := func(n int, low, high uint16) {
			t.Helper()
			for range n {
				if p := dial(t, s, network).allocate().Port(); p < low || p > high {
					t.Errorf("port %d, want one from %d to %d", p, low, high)
				}
			}
		}
		s.SetForwarded(PortRange{50102, 50104})
		take(3, 50102, 50104)
		take(1, 50100, 50107) // the rest is good too
		s.SetForwarded(PortRange{50107, 60000})
		if got := s.forwarded.Load(); *got != (PortRange{50107, 50107}) {
			t.Errorf("beyond the range: %v", *got)
		}
		for _, none := range []PortRange{{}, {1, 2}, {50108, 50109}} {
			if s.SetForwarded(none); s.forwarded.Load() != nil {
				t.Errorf("%v counts as %v", none, *s.forwarded.Load())
			}
		}
		take(4, 50100, 50107)
	})
}

// TestFreePorts is the search for a port among those that are held.
func TestFreePorts(t *testing.T) {
	host := netip.MustParseAddr("192.0.2.1")
	for _, row := range []struct {
		ports      PortRange
		held       []uint16
		from       uint16
		even, pair bool
		want       int // 0: none
	}{
		{PortRange{100, 300}, nil, 200, false, false, 200},
		{PortRange{100, 300}, []uint16{200, 201}, 200, false, false, 202},
		{PortRange{100, 103}, []uint16{102, 103}, 102, false, false, 100},
		{PortRange{100, 103}, []uint16{100, 101, 102, 103}, 101, false, false, 0},
		{PortRange{101, 101}, nil, 101, true, false, 0},
		{PortRange{101, 104}, nil, 101, true, false, 102},
		{PortRange{101, 104}, []uint16{103}, 101, true, true, 0},
		{PortRange{101, 105}, []uint16{103}, 101, true, true, 104},
		{PortRange{1, 65535}, nil, 65535, true, true, 2},
		{PortRange{63, 64}, []uint16{63}, 63, false, false, 64},
	} {
		tab := newTable()
		for _, p := range row.held {
			tab.hold(netip.AddrPortFrom(host, p))
		}
		port, ok := tab.holdFree(host, row.ports, row.from, row.even, row.pair)
		if !ok {
			port = 0
		}
		if int(port) != row.want {
			t.Errorf("%+v: %d", row, port)
		}
		if ok && tab.hold(netip.AddrPortFrom(host, port)) || row.pair && ok && tab.hold(netip.AddrPortFrom(host, port+1)) {
			t.Errorf("%+v: not held", row)
		}
	}
}
