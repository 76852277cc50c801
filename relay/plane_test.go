package relay

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

// TestRelayingDoesNotAllocate sends many packets through real sockets, both ways, over each transport and inside the process.
func TestRelayingDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates by itself")
	}
	for _, row := range []struct {
		name, network string
		inside        bool
		portable      bool
	}{
		{"udp", "udp", false, false}, {"tcp", "tcp", false, false}, {"inside udp", "udp", true, false}, {"inside tcp", "tcp", true, false},
		{"portable udp", "udp", false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newServer(t, func(c *Config) { allowLoopback(c); c.Portable = row.portable })
			a := dial(t, s, row.network)
			ra := a.allocate()
			bounce := func() {}
			if !row.inside {
				pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
				if err != nil {
					t.Fatal(err)
				}
				defer pc.Close()
				a.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(pc.LocalAddr().(*net.UDPAddr).AddrPort()))
				buf := make([]byte, 2048)
				bounce = func() {
					n, from, err := pc.ReadFromUDPAddrPort(buf)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := pc.WriteToUDPAddrPort(buf[:n], from); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				b := dial(t, s, row.network).as("1:bob")
				rb := b.allocate()
				a.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(rb))
				b.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(ra))
				b.conn.SetDeadline(time.Now().Add(time.Minute))
				buf := make([]byte, 2048)
				bounce = func() {
					n, err := b.conn.Read(buf)
					if err != nil {
						t.Fatal(err)
					}
					b.send(buf[:n])
				}
			}
			packet := channelData(0x4000, random(1200))
			back := make([]byte, 2048)
			once := func() {
				a.send(packet)
				bounce()
				if n, err := a.conn.Read(back); err != nil || n != len(packet) {
					t.Fatal(n, err)
				}
			}
			deadline := time.Now().Add(time.Minute)
			a.conn.SetDeadline(deadline)
			for range 1000 {
				once()
			}
			const rounds = 50_000
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range rounds {
				once()
			}
			runtime.ReadMemStats(&after)
			// The collector empties pools, and the runtime keeps books of its own: a few for all, none for each.
			if n := after.Mallocs - before.Mallocs; n > rounds/100 {
				t.Fatalf("%d allocations for %d packets", n, 2*rounds)
			}
		})
	}
}

// BenchmarkChannelData is the plane without its sockets: a ChannelData message to the peer.
func BenchmarkChannelData(b *testing.B) {
	s := newServer(b, allowLoopback)
	w := dial(b, s, "udp")
	w.allocate()
	w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(netip.MustParseAddrPort("127.0.0.1:9")))
	list := s.table.list()
	packet := channelData(0x4000, random(1200))
	wk := s.works.get()
	b.ReportAllocs()
	for b.Loop() {
		s.fromClient(wk, list[0], packet)
	}
}
