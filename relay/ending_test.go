package relay

import (
	"bytes"
	"crypto/tls"
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

// corked keeps what is written until it is told to send.
type corked struct {
	net.Conn
	kept *bytes.Buffer // nil: it sends at once
}

func (c *corked) Write(b []byte) (int, error) {
	if c.kept != nil {
		return c.kept.Write(b)
	}
	return c.Conn.Write(b)
}

// TestLastRecordBeforeTheCloseCounts: TLS 1.2 gives what came last and the end of the stream in one.
func TestLastRecordBeforeTheCloseCounts(t *testing.T) {
	for _, shards := range []bool{false, true} {
		peer, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		s := newServer(t, allowLoopback)
		a, b := tcpPair(t)
		config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
		go func() { // Server.Close waits for it
			if !shards {
				s.ServeStream(tls.Server(b, config))
			} else if session := tls.Server(&looked{Conn: b}, config); session.Handshake() == nil {
				s.ServeStream(&looked{Conn: session})
			}
		}()
		under := &corked{Conn: a}
		c := tls.Client(under, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		w := (&wire{TB: t, conn: c, tcp: true}).as("1:alice")
		w.allocate()
		w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(netip.MustParseAddrPort(peer.LocalAddr().String())))
		under.kept = new(bytes.Buffer)
		w.send(channelData(0x4000, []byte("bye")))
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		a.SetWriteDeadline(time.Time{}) // CloseWrite has left one that is over
		if _, err := a.Write(under.kept.Bytes()); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 9)
		peer.SetReadDeadline(time.Now().Add(answerTimeout))
		if n, _, err := peer.ReadFrom(got); err != nil || string(got[:n]) != "bye" {
			t.Fatalf("in shards %v: %q, %v", shards, got[:n], err)
		}
	}
}
