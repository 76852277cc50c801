package relay

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v2"

	"callbox/relay/internal/udp"
)

// TestWhatWasSentBeforeTheEndLeaves: a client says goodbye to its peer and ends the allocation in the next packet, and one read
// brings both.
func TestWhatWasSentBeforeTheEndLeaves(t *testing.T) {
	both(t, allowLoopback, func(t *testing.T, s *testServer, network string) {
		peer, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		to := netip.MustParseAddrPort(peer.LocalAddr().String())
		for _, end := range []stun.Setter{nil, attr(stun.AttrRequestedAddressFamily, wireFour, 0, 0, 0)} {
			w := dial(t, s, network)
			attrs := []stun.Setter{lifetime(0)}
			if end == nil {
				w.allocate()
			} else {
				hasSix(t)
				w.allocate(asksBoth)
				attrs = append(attrs, end)
			}
			w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(to))
			bye, refresh := channelData(0x4000, []byte("bye")), w.signed(stun.MethodRefresh, attrs...).Raw
			if network == "tcp" {
				w.send(append(bye, refresh...))
			} else {
				hand := s.works.get()
				for _, b := range [][]byte{bye, refresh} {
					s.datagram(hand, s.listeners[0], &udp.Packet{Data: b, Peer: netip.MustParseAddrPort(w.conn.LocalAddr().String())})
				}
				s.works.put(hand)
			}
			if m := w.message(); m.Type.Class != stun.ClassSuccessResponse {
				t.Fatal(m)
			}
			b := make([]byte, 9)
			peer.SetReadDeadline(time.Now().Add(answerTimeout))
			if n, _, err := peer.ReadFrom(b); err != nil || string(b[:n]) != "bye" {
				t.Fatalf("%q, %v; %d packets could not be sent", b[:n], err, s.Stats().Drops["send-failed"])
			}
		}
	})
}
