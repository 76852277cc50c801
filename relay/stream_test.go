package relay

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

func TestFrameThatCannotBeClosesTheConnection(t *testing.T) {
	s := newServer(t, nil)
	for _, frame := range []string{
		"\x40\x00\xff\xfc\x00\x00\x00\x00\x00", // overflows 16 bits with its padding
		"\x00\x01\xff\xec\x21\x12\xa4\x42\x00", // overflows 16 bits with its header
		"\x00\x01\x00\x01",                     // STUN is a multiple of four
		"\x00\x01\x00\x00\x21\x12\xa4\x43",     // not the cookie
		"\x50\x00\x00\x00",                     // a reserved channel
		"\xff",
		"GET / HTTP/1.1\r\n\r\n",
	} {
		w := dial(t, s, "tcp")
		before := s.Stats().Drops["malformed"]
		w.alive()
		w.send([]byte(frame))
		w.closed()
		if got := s.Stats().Drops["malformed"]; got != before+1 {
			t.Errorf("%q counted %d times", frame, got-before)
		}
	}
}

func TestDatagramThatCannotBeIsDropped(t *testing.T) {
	s := newServer(t, nil)
	w := dial(t, s, "udp")
	for _, datagram := range []string{"", "\x40\x00\xff\xfc\x00\x00\x00\x00\x00", "\x00\x01\xff\xec\x21\x12\xa4\x42\x00", "\x50\x00\x00\x00", "\x40", "\xff"} {
		w.silent([]byte(datagram))
	}
	w.allocate()
	w.silent([]byte("\x40\x00\xff\xfc\x00\x00\x00\x00\x00"))
	w.silent([]byte("\x40\x00"))
}

func TestFramesInPiecesAndInOneWrite(t *testing.T) {
	s := newServer(t, allowLoopback)
	to := echo(t, "127.0.0.1:0").AddrPort()
	w := dial(t, s, "tcp")
	w.allocate()
	w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(to))
	all := append(channelData(0x4000, []byte("one")), channelData(0x4000, []byte("twotwo"))...)
	w.send(all)
	for _, want := range []string{"one", "twotwo"} {
		if got := w.onChannel(0x4000); string(got) != want {
			t.Fatalf("%q", got)
		}
	}
	for i := range all {
		w.send(all[i : i+1])
	}
	for _, want := range []string{"one", "twotwo"} {
		if got := w.onChannel(0x4000); string(got) != want {
			t.Fatalf("%q", got)
		}
	}
}

func TestClientThatSendsNothingIsClosed(t *testing.T) {
	s := newServer(t, func(c *Config) { c.timing.firstRequest = 20 * time.Millisecond; c.timing.idle = 50 * time.Millisecond })
	dial(t, s, "tcp").closed()

	half := dial(t, s, "tcp")
	half.send([]byte{0, 1}) // a message that never ends is no message
	half.closed()

	idle := dial(t, s, "tcp")
	idle.alive()
	idle.closed()

	kept := dial(t, s, "tcp")
	kept.allocate()
	for range 3 { // it lives while others come and go
		other := dial(t, s, "tcp")
		other.alive()
		other.closed()
	}
	kept.succeed(stun.MethodRefresh, lifetime(0))
	kept.closed()
	eventually(t, "no stream is left", func() bool { return s.Stats().Streams[TCP] == 0 })
}

func TestClientThatReadsNothingIsClosed(t *testing.T) {
	s := newServer(t, func(c *Config) { c.timing.write = 50 * time.Millisecond })
	slow := dial(t, s, "tcp")
	to := slow.allocate()
	fast := dial(t, s, "udp").as("1:bob")
	from := fast.allocate()
	slow.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(from))
	fast.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(to))
	// Nobody waits for the slow one: what it does not take is dropped, and then it is gone.
	eventually(t, "the slow client is closed", func() bool {
		for range 50 {
			fast.send(channelData(0x4000, random(8000)))
		}
		fast.alive()
		return s.Stats().Streams[TCP] == 0
	})
	if s.Stats().Drops["slow-client"] == 0 {
		t.Fatal("nothing was dropped")
	}
	if n := len(s.Allocations()); n != 1 {
		t.Fatalf("%d allocations are left", n)
	}
}

// crawl is a connection whose other end takes a little at a time: each piece written takes a while, longer than a deadline
// for all that waits together would allow.
type crawl struct {
	net.Conn
	deadline atomic.Int64 // of writing, unix nanoseconds
	taken    atomic.Int64
}

const crawlRate = 64 << 10 // bytes a second

func (c *crawl) SetWriteDeadline(t time.Time) error {
	c.deadline.Store(int64(time.Until(t)))
	return nil
}

// Write takes no time, but says what a connection of that rate would say.
func (c *crawl) Write(b []byte) (int, error) {
	takes := time.Duration(len(b)) * time.Second / crawlRate
	if takes > time.Duration(c.deadline.Load()) {
		return 0, os.ErrDeadlineExceeded
	}
	c.taken.Add(int64(len(b)))
	return len(b), nil
}

// TestSlowClientIsKept: a full backlog is more than a slow client takes within the deadline of one write, and no reason to
// close it.
func TestSlowClientIsKept(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := &crawl{Conn: near}
	var running sync.WaitGroup
	defer running.Wait()
	out := newSender(c, time.Second, false, running.Go)
	defer out.Close()
	if !out.Queue(random(maxPending), maxPending) || out.Queue(random(1), maxPending) {
		t.Fatal("more or less waits than may")
	}
	out.Flush()
	eventually(t, "all of it is written", func() bool { return c.taken.Load() == maxPending })
	if err := far.SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection was closed: %v", err)
	}
}

func TestClosedStreamEndsItsAllocation(t *testing.T) {
	s := newServer(t, nil)
	w := dial(t, s, "tcp")
	relayed := w.allocate()
	w.conn.Close()
	eventuallyFree(t, relayed)
	eventually(t, "the allocation is gone", func() bool { return len(s.Allocations()) == 0 })
}

func TestTransportIsSeenThroughWrappers(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	secure := tls.Client(a, &tls.Config{})
	for _, row := range []struct {
		conn net.Conn
		want Transport
	}{{a, TCP}, {secure, TLS}, {wrapped{secure}, TLS}, {wrapped{a}, TCP}, {wrapped{nil}, TCP}} {
		if got := transportOf(row.conn); got != row.want {
			t.Errorf("%T: %v", row.conn, got)
		}
	}
}

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// next cuts the next frame of what a framer has read.
func next(f *framer) ([]byte, error) {
	frame, rest, err := cut(f.unread())
	f.left(len(rest))
	return frame, err
}

// TestFramer feeds streams in pieces of every size.
func TestFramer(t *testing.T) {
	binding := stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	data := channelData(0x4321, random(5000))
	stream := append(append(append([]byte(nil), binding...), data...), binding...)
	for piece := 1; piece < len(stream); piece = piece*2 + 1 {
		var f framer
		var frames [][]byte
		for rest := stream; len(rest) > 0; {
			n := copy(f.space(), rest[:min(piece, len(rest))])
			f.filled(n)
			rest = rest[n:]
			for {
				b, err := next(&f)
				if err != nil {
					t.Fatal(err)
				}
				if b == nil {
					break
				}
				frames = append(frames, append([]byte(nil), b...))
			}
		}
		if len(frames) != 3 || string(frames[1]) != string(data) || string(frames[2]) != string(binding) {
			t.Fatalf("pieces of %d: %d frames", piece, len(frames))
		}
	}
}

// tcpPair is a connected pair on loopback.
func tcpPair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// looked is a connection whose first bytes somebody has looked at.
type looked struct {
	net.Conn
	prefix []byte
}

func (l *looked) Read(b []byte) (int, error) {
	if n := copy(b, l.prefix); n > 0 {
		l.prefix = l.prefix[n:]
		return n, nil
	}
	return l.Conn.Read(b)
}

func (l *looked) Unread() ([]byte, net.Conn) { return l.prefix, l.Conn }

func (l *looked) NetConn() net.Conn { return l.Conn }

func (l *looked) Swap(next net.Conn) net.Conn {
	old := l.Conn
	l.Conn = next
	return old
}

func TestBytesThatWereLookedAtCount(t *testing.T) {
	binding := stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	for _, portable := range []bool{false, true} {
		for _, n := range []int{0, 1, 19, len(binding), len(binding) + 7, 2 * len(binding)} {
			s := newServer(t, func(c *Config) { c.Portable = portable })
			client, server := tcpPair(t)
			all := append(append([]byte(nil), binding...), binding...)
			go s.ServeStream(&looked{Conn: server, prefix: all[:n]})
			w := &wire{TB: t, conn: client, tcp: true}
			w.send(all[n:])
			for range 2 {
				m := &stun.Message{Raw: w.receive()}
				if err := m.Decode(); err != nil || m.Type != stun.BindingSuccess {
					t.Fatalf("%d bytes looked at: %v, %v", n, m.Type, err)
				}
			}
		}
	}
}

// TestSlowClientGetsWhatWaits: what the kernel has no room for is sent when the client reads on.
func TestSlowClientGetsWhatWaits(t *testing.T) {
	s := newServer(t, nil)
	slow := dial(t, s, "tcp")
	to := slow.allocate()
	fast := dial(t, s, "udp").as("1:bob")
	from := fast.allocate()
	slow.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(from))
	fast.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(to))
	payload := random(8000)
	eventually(t, "something is dropped", func() bool {
		for range 20 {
			fast.send(channelData(0x4000, payload))
		}
		fast.alive()
		return s.Stats().Drops["slow-client"] > 0
	})
	sent := s.Stats().Inside.Packets - s.Stats().Drops["slow-client"]
	for range sent {
		if got := slow.onChannel(0x4000); string(got) != string(payload) {
			t.Fatalf("%d bytes that are not what was sent", len(got))
		}
	}
	slow.alive()
}
