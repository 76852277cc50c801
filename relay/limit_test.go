package relay

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

func TestOwnersQuotaOfAllocations(t *testing.T) {
	both(t, func(c *Config) { c.Quota.Allocations = 2 }, func(t *testing.T, s *testServer, network string) {
		first := dial(t, s, network)
		first.allocate()
		dial(t, s, network).as("2:alice").allocate() // another name of the same owner
		third := dial(t, s, network)
		third.code(third.do(stun.MethodAllocate, transportUDP), 486)
		dial(t, s, network).as("1:bob").allocate()
		first.succeed(stun.MethodRefresh, lifetime(0))
		third.allocate()
		if got := s.Stats().QuotaRefusals["owner-allocations"]; got != 1 {
			t.Fatalf("%d refusals counted", got)
		}
	})
}

func TestReservationsCount(t *testing.T) {
	both(t, func(c *Config) { c.Quota.Allocations = 1 }, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		w.code(w.do(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80)), 486)
		w.allocate(attr(stun.AttrEvenPort, 0))
	})
}

func TestTotalQuotaOfAllocations(t *testing.T) {
	both(t, func(c *Config) { c.Quota.Total = 1 }, func(t *testing.T, s *testServer, network string) {
		dial(t, s, network).allocate()
		w := dial(t, s, network).as("1:bob")
		w.code(w.do(stun.MethodAllocate, transportUDP), 508)
	})
}

func TestPermissionsAreBounded(t *testing.T) {
	both(t, func(c *Config) { c.Quota.Permissions = 8 }, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		w.allocate()
		for i := range 8 {
			w.succeed(stun.MethodCreatePermission, peer(fmt.Sprintf("8.8.8.%d:1", i)))
		}
		w.code(w.do(stun.MethodCreatePermission, peer("8.8.9.1:1")), 508)
		w.succeed(stun.MethodCreatePermission, peer("8.8.8.7:1"), peer("8.8.8.6:9"))
		w.code(w.do(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.9.1:1")), 508)
		for i := range 8 {
			w.succeed(stun.MethodChannelBind, channelNumber(0x4000+uint16(i)), peer(fmt.Sprintf("8.8.8.1:%d", i+1)))
		}
		w.code(w.do(stun.MethodChannelBind, channelNumber(0x4800), peer("8.8.8.1:99")), 508)
		w.succeed(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.8.1:1"))
	})
}

func TestExpiredPermissionsMakeRoom(t *testing.T) {
	now := time.Unix(1e9, 0)
	var a allocation
	at := func(s string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(s)} }
	a.permit(at("8.8.8.1:1"), now)
	a.permit(at("8.8.8.2:1"), now.Add(time.Minute))
	for _, row := range []struct {
		after time.Duration
		peer  string
		want  bool
	}{
		{0, "8.8.8.3:1", false},
		{0, "8.8.8.1:1", true},
		{permissionLifetime, "8.8.8.3:1", true},
	} {
		if got := a.room(at(row.peer), 2, now.Add(row.after)); got != row.want {
			t.Errorf("%s after %v: %v", row.peer, row.after, got)
		}
	}
	if a.permitted(at("8.8.8.2:1")[0].Addr(), now.Add(time.Minute+permissionLifetime)) {
		t.Error("a permission outlived its five minutes")
	}
	a.bind(0x4000, at("8.8.8.1:1")[0], true, now)
	if a.channelOf(0x4000, now.Add(permissionLifetime)) == nil || a.channelOf(0x4000, now.Add(channelLifetime)) != nil {
		t.Error("a channel does not live for ten minutes")
	}
	if !a.roomForChannel(0x4001, 1, now.Add(channelLifetime)) {
		t.Error("an expired channel takes room")
	}
}

// TestRefreshedChannelKeepsToThePolicyOfTheDay: it is asked at each ChannelBind.
func TestRefreshedChannelKeepsToThePolicyOfTheDay(t *testing.T) {
	now := time.Unix(1e9, 0)
	peer := netip.MustParseAddrPort("8.8.8.1:1")
	var a allocation
	for _, direct := range []bool{true, false, true} {
		a.bind(0x4000, peer, direct, now)
		if c := a.channelOf(0x4000, now); c == nil || c.direct.Load() != direct {
			t.Fatalf("channel %v where direct is %v", c, direct)
		}
		if c, _ := a.wayTo(peer, now); c == nil || c.direct.Load() != direct {
			t.Fatalf("way %v where direct is %v", c, direct)
		}
	}
}

// TestChannelDoesNotOutliveItsPermissionInwards: what a peer sends needs the permission, which ends five minutes before the
// channel does.
func TestChannelDoesNotOutliveItsPermissionInwards(t *testing.T) {
	now := time.Unix(1e9, 0)
	one, other := netip.MustParseAddrPort("8.8.8.1:1"), netip.MustParseAddrPort("8.8.8.1:2")
	var a allocation
	a.bind(0x4000, one, true, now)
	for _, row := range []struct {
		after   time.Duration
		peer    netip.AddrPort
		channel bool
		permits bool
	}{
		{0, one, true, true},
		{0, other, false, true},
		{permissionLifetime - 1, one, true, true},
		{permissionLifetime, one, false, false},
		{permissionLifetime, other, false, false},
	} {
		c, permits := a.wayTo(row.peer, now.Add(row.after))
		if (c != nil) != row.channel || permits != row.permits {
			t.Errorf("%v after %v: channel %v, permitted %v", row.peer, row.after, c, permits)
		}
	}
	a.permit([]netip.AddrPort{one}, now.Add(permissionLifetime+1))
	if c, _ := a.wayTo(one, now.Add(channelLifetime-1)); c == nil {
		t.Error("a permission did not bring the channel back")
	}
	if c, permits := a.wayTo(one, now.Add(channelLifetime)); c != nil || !permits {
		t.Error("a channel outlived its ten minutes")
	}
}

func TestBitrateOfAnOwner(t *testing.T) {
	both(t, func(c *Config) { allowLoopback(c); c.Quota.UserBitrate = 80_000 }, func(t *testing.T, s *testServer, network string) {
		to := echo(t, "127.0.0.1:0").AddrPort()
		w := dial(t, s, network)
		w.allocate()
		w.succeed(stun.MethodCreatePermission, xorPeer(to))
		for range 20 { // 20 kB where 5 kB are a burst
			w.sendTo(to, random(1000))
		}
		w.alive2()
		st := s.Stats()
		if st.Drops["user-bitrate"] < 10 || st.ToPeers.Packets == 0 {
			t.Fatalf("%+v", st)
		}
	})
}

// TestBitrateOutlivesTheAllocation: making the allocation anew does not buy another burst.
func TestBitrateOutlivesTheAllocation(t *testing.T) {
	both(t, func(c *Config) { allowLoopback(c); c.Quota.UserBitrate = 80_000 }, func(t *testing.T, s *testServer, network string) {
		to := echo(t, "127.0.0.1:0").AddrPort()
		w := dial(t, s, network)
		start := time.Now()
		sent := 0
		for range 20 {
			w.allocate()
			w.succeed(stun.MethodCreatePermission, xorPeer(to))
			for range 6 {
				w.sendTo(to, random(1000))
				sent++
			}
			w.alive2()
			w.await(w.signed(stun.MethodRefresh, lifetime(0)), func([]byte) {})
		}
		// What a burst and the time it took allow; the echo's way back counts as much.
		most := uint64(5_000 + 10_000*time.Since(start).Seconds() + 1000)
		if got := s.Stats().ToPeers.Bytes; got == 0 || got > most {
			t.Fatalf("%d of %d bytes left, at most %d were due", got, sent*1000, most)
		}
		s.accounts.mu.Lock()
		defer s.accounts.mu.Unlock()
		s.accounts.sweep(time.Now().Add(rateBurst))
		if n := len(s.accounts.open); n != 0 {
			t.Fatalf("%d accounts are left", n)
		}
	})
}

// alive2 is alive with data on the way.
func (w *wire) alive2() {
	w.Helper()
	w.await(w.bare(stun.MethodBinding), func([]byte) {})
}

func TestBitrateOfAll(t *testing.T) {
	both(t, func(c *Config) { allowLoopback(c); c.Quota.TotalBitrate = 80_000 }, func(t *testing.T, s *testServer, network string) {
		to := echo(t, "127.0.0.1:0").AddrPort()
		w := dial(t, s, network)
		w.allocate()
		w.succeed(stun.MethodCreatePermission, xorPeer(to))
		for range 20 {
			w.sendTo(to, random(1000))
		}
		w.alive2()
		if st := s.Stats(); st.Drops["total-bitrate"] < 10 || st.Drops["user-bitrate"] != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

func TestBucket(t *testing.T) {
	r := rate{bits: 8000} // 1000 bytes a second, 500 at once
	now := time.Unix(1e9, 0)
	for i, row := range []struct {
		after time.Duration
		bytes int
		want  bool
	}{{0, 500, true}, {0, 1, false}, {10 * time.Millisecond, 11, false}, {10 * time.Millisecond, 10, true}, {time.Hour, 500, true}, {time.Hour, 1, false},
		{2 * time.Hour, 3000, true}, {2*time.Hour + 2*time.Second, 1000, false}, {2*time.Hour + 3*time.Second, 1, true}} {
		if got := r.take(row.bytes, now.Add(row.after)); got != row.want {
			t.Errorf("row %d: %v", i, got)
		}
	}
}

func TestStrangersAreAnsweredSeldom(t *testing.T) {
	both(t, func(c *Config) { c.Quota.UnauthRate, c.Quota.UnauthBurst = 1, 3 }, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		for range 3 {
			w.ask(w.bare(stun.MethodAllocate))
		}
		for range 20 {
			w.silent(w.bare(stun.MethodAllocate).Raw)
		}
		if st := s.Stats(); st.Drops["unauthenticated-rate"] < 19 || st.Challenges > 4 {
			t.Fatalf("%+v", st)
		}
	})
}

func TestSourcePrefixesHaveBucketsOfTheirOwn(t *testing.T) {
	l := newPrefixLimit(1, 1)
	now := time.Unix(1e9, 0)
	for _, row := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1", true}, {"192.0.2.255", false}, {"192.0.3.1", true}, {"::ffff:192.0.2.9", false},
		{"2001:db8::1", true}, {"2001:db8:0:ff::1", false}, {"2001:db8:0:100::1", true},
	} {
		if got := l.allow(netip.MustParseAddr(row.addr), now); got != row.want {
			t.Errorf("%s: %v", row.addr, got)
		}
	}
	if !l.allow(netip.MustParseAddr("192.0.2.1"), now.Add(time.Second)) {
		t.Error("no answer after the bucket filled again")
	}
}

func TestConnectionsOfAnAddressAreBounded(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Quota.ConnectionsPerAddress = 2 })
	first := dial(t, s, "tcp")
	first.alive()
	dial(t, s, "tcp").alive()
	third := dial(t, s, "tcp")
	third.closed()
	first.conn.Close()
	eventually(t, "the place is free again", func() bool {
		c, err := net.Dial("tcp", s.tcp.Addr().String())
		if err != nil {
			return false
		}
		defer c.Close()
		w := &wire{TB: t, conn: c, tcp: true}
		c.Write(w.bare(stun.MethodBinding).Raw)
		_, err = w.tryReceive(answerTimeout)
		return err == nil
	})
}

func TestDatagramLongerThanTheBufferIsDropped(t *testing.T) {
	s := newServer(t, allowLoopback)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	to := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	w := dial(t, s, "udp")
	relayed := w.allocate()
	w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(to))
	for _, size := range []int{20000, 9217, 9216} { // from the peer
		if _, err := pc.WriteTo(random(size), net.UDPAddrFromAddrPort(relayed)); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.onChannel(0x4000); len(got) != 9216 {
		t.Fatalf("%d bytes", len(got))
	}
	w.silent(channelData(0x4000, random(20000))) // from the client
	if got := s.Stats().Drops["too-long"]; got != 3 {
		t.Fatalf("%d counted", got)
	}
}
