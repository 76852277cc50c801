package relay

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

// BenchmarkRelay sends bursts of ChannelData through the relay to a peer that sends them back, over real sockets on loopback. A packet
// relayed one way is one operation; client and peer run in the same process and are in the figure.
func BenchmarkRelay(b *testing.B) {
	for _, row := range []struct {
		name     string
		network  string
		size     int
		burst    int
		portable bool
	}{
		{"audio", "udp", 160, 1, false},
		{"audio portable", "udp", 160, 1, true},
		{"video", "udp", 1200, 10, false},
		{"video portable", "udp", 1200, 10, true},
		{"tcp video", "tcp", 1200, 10, false},
	} {
		b.Run(row.name, func(b *testing.B) {
			s := newServer(b, func(c *Config) { allowLoopback(c); c.Portable = row.portable })
			peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Fatal(err)
			}
			defer peer.Close()
			w := dial(b, s, row.network)
			w.allocate()
			w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(peer.LocalAddr().(*net.UDPAddr).AddrPort()))
			packet := channelData(0x4000, random(row.size))
			back := make([]byte, len(packet))
			b.SetBytes(int64(row.size))
			b.ReportAllocs()
			b.ResetTimer()
			for sent := 0; sent < b.N; sent += 2 * row.burst {
				for range row.burst {
					w.send(packet)
				}
				peer.SetReadDeadline(time.Now().Add(answerTimeout))
				for range row.burst {
					n, from, err := peer.ReadFromUDPAddrPort(back)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := peer.WriteToUDPAddrPort(back[:n], from); err != nil {
						b.Fatal(err)
					}
				}
				w.conn.SetReadDeadline(time.Now().Add(answerTimeout))
				for range row.burst {
					if _, err := io.ReadFull(w.conn, back); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkAllocation makes an allocation with a channel and ends it.
func BenchmarkAllocation(b *testing.B) {
	s := newServer(b, func(c *Config) { allowLoopback(c); c.Quota.UnauthRate = -1 })
	w := dial(b, s, "udp")
	b.ReportAllocs()
	for b.Loop() {
		w.allocate()
		w.succeed(stun.MethodChannelBind, channelNumber(0x4000), peer("127.0.0.1:9"))
		w.succeed(stun.MethodRefresh, lifetime(0))
	}
}
