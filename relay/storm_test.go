package relay

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

// TestStreamsWhileTheServerCloses: clients over TCP and TLS send to each other, stop reading, reset, half-close, lose their credentials
// and come again, and the server closes while they do. Nothing of them is left then, and nobody is held up.
func TestStreamsWhileTheServerCloses(t *testing.T) {
	planes(t, nil, func(t *testing.T, change func(*Config)) {
		weather := &storm{cert: selfSigned(t), echo: echo(t, "127.0.0.1:0").AddrPort()}
		weather.blow(t, change) // what the process opens once is open after it
		open := descriptors(t)
		for range 3 {
			weather.blow(t, change)
			eventually(t, "all descriptors are closed", func() bool { return descriptors(t) <= open })
		}
	})
}

// descriptors is how many files the process has open, where the system tells.
func descriptors(t *testing.T) int {
	if !onLinux {
		return 0
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

type storm struct {
	cert tls.Certificate

	echo netip.AddrPort // sends back what it gets
	came atomic.Int64   // messages from peers that clients were given

	mu    sync.Mutex
	peers []netip.AddrPort // relayed addresses of clients that live or lived
}

// adrift is a client's test: what fails it ends the client, because the server may be closing.
type adrift struct{ testing.TB }

func (adrift) Helper()               {}
func (adrift) Fatal(...any)          { runtime.Goexit() }
func (adrift) Fatalf(string, ...any) { runtime.Goexit() }

// blow is one server's life.
func (o *storm) blow(t *testing.T, change func(*Config)) {
	t.Helper()
	o.peers = nil
	o.came.Store(0)
	s := newServer(t, func(c *Config) {
		change(c)
		allowLoopback(c)
		c.timing.write = 50 * time.Millisecond
		c.Quota.UnauthRate = 1 << 20
	})
	secret, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving, clients sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := secret.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				session := tls.Server(&looked{Conn: c}, &tls.Config{Certificates: []tls.Certificate{o.cert}})
				if session.Handshake() == nil {
					s.ServeStream(&looked{Conn: session})
				}
				c.Close()
			})
		}
	})
	over := make(chan struct{})
	for i := range 24 {
		clients.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					var life sync.WaitGroup
					life.Go(func() { o.client(t, s, secret.Addr().String(), i) })
					life.Wait()
				}
			}
		})
	}
	clients.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			case <-time.After(20 * time.Millisecond):
				s.Revoke(func(owner Owner) bool { return owner.User == stormUser(i) })
			}
		}
	})
	enough := 200 + rand.Int64N(800)
	eventually(t, "clients hear of each other", func() bool { return o.came.Load() > enough })
	s.Close()
	if n := s.Stats().Streams; n[TCP]+n[TLS] > 0 || len(s.Allocations()) > 0 {
		t.Errorf("streams %v and %d allocations are left", n, len(s.Allocations()))
	}
	close(over)
	s.tcp.Close()
	secret.Close()
	clients.Wait()
	serving.Wait()
}

func stormUser(i int) string { return "user" + strconv.Itoa(i%8) }

// client is the life of one client.
func (o *storm) client(t *testing.T, s *testServer, secret string, i int) {
	addr := s.tcp.Addr().String()
	if i%2 == 1 {
		addr = secret
	}
	bare, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer bare.Close()
	bare.SetDeadline(time.Now().Add(answerTimeout))
	w := (&wire{TB: adrift{t}, conn: bare, tcp: true}).as("1:" + stormUser(i))
	end := bare.(*net.TCPConn).CloseWrite
	if i%2 == 1 {
		session := tls.Client(bare, &tls.Config{InsecureSkipVerify: true}) // the certificate is the test's own
		w.conn, end = session, session.CloseWrite
	}
	relayed := w.allocate()
	o.mu.Lock()
	o.peers = append(o.peers, relayed)
	o.mu.Unlock()
	var reading sync.WaitGroup
	defer reading.Wait()
	defer bare.Close()
	deaf := rand.IntN(6) == 0
	for n := range 8 {
		o.mu.Lock()
		to := o.peers[len(o.peers)-1-rand.IntN(min(len(o.peers), 24))]
		o.mu.Unlock()
		if rand.IntN(4) == 0 {
			to = o.echo
		}
		// What comes before the answer is from peers that were bound before.
		w.await(w.signed(stun.MethodChannelBind, channelNumber(0x4000+uint16(n)), xorPeer(to)), func(b []byte) { o.check(t, b) })
	}
	if !deaf {
		reading.Go(func() {
			for {
				b, err := w.tryReceive(answerTimeout)
				if err != nil {
					return
				}
				o.check(t, b)
			}
		})
	}
	for range rand.IntN(300) {
		var burst []byte
		for range 1 + rand.IntN(20) {
			n := rand.IntN(1500)
			burst = append(burst, channelData(0x4000+uint16(rand.IntN(8)), bytes.Repeat([]byte{byte(n)}, n))...)
		}
		w.send(burst)
	}
	switch rand.IntN(4) {
	case 0:
		bare.(*net.TCPConn).SetLinger(0) // a reset
	case 1:
		end()
		reading.Wait()
	case 2:
		w.send([]byte("GET / HTTP/1.1\r\n\r\n"))
		if deaf {
			io.Copy(io.Discard, w.conn)
		}
		reading.Wait()
	}
}

// check looks at a message that a client was given. What peers send each other are as many bytes as each of them says.
func (o *storm) check(t *testing.T, b []byte) {
	if looksLikeSTUN(b) {
		return // an answer, or the address of the peer is in it
	}
	o.came.Add(1)
	size := int(binary.BigEndian.Uint16(b[2:]))
	if data := b[channelHeader:][:size]; !bytes.Equal(data, bytes.Repeat([]byte{byte(size)}, size)) {
		t.Errorf("%d bytes that nobody sent: % x", size, data[:min(size, 16)])
	}
}
