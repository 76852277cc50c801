package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socket is a Conn of either kind, with what has come to it.
type socket struct {
	*Conn
	came chan received
	out  *Outbox // to send with from outside
}

type received struct {
	data  []byte
	from  netip.AddrPort
	local netip.Addr
}

// kinds are the ways to open a socket: with a reader of its own, and on a loop where the system has them.
func kinds(t *testing.T, f func(t *testing.T, open func(t *testing.T, addr string, o Options) *socket)) {
	t.Run("reader", func(t *testing.T) { f(t, openReader) })
	l, err := NewLoop(&Outbox{}, func(time.Time) {}, func() {})
	if err != nil {
		t.Log(err)
		return
	}
	l.Close()
	l.Run()
	t.Run("loop", func(t *testing.T) { f(t, openLoop) })
}

func (s *socket) take(t *testing.T, p *Packet) {
	if framed := p.Framed(); len(framed) != Headroom+len(p.Data) || cap(p.Data) < len(p.Data)+3 || !bytes.Equal(framed[Headroom:], p.Data) {
		t.Errorf("packet of %d bytes, capacity %d, framed %d", len(p.Data), cap(p.Data), len(framed))
	}
	s.came <- received{bytes.Clone(p.Data), p.Peer, p.Local}
}

func newSocket(t *testing.T) *socket {
	return &socket{came: make(chan received, 1000), out: &Outbox{Failed: func(err error) { t.Error(err) }}}
}

func openReader(t *testing.T, addr string, o Options) *socket {
	t.Helper()
	s := newSocket(t)
	var err error
	if s.Conn, err = Listen(netip.MustParseAddrPort(addr), o); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pool := NewPool()
		for {
			b, err := s.Read(pool)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			for i := range b.Packets {
				s.take(t, &b.Packets[i])
			}
			pool.Put(b)
		}
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return s
}

func openLoop(t *testing.T, addr string, o Options) *socket {
	t.Helper()
	l := startLoop(t)
	s := newSocket(t)
	var err error
	if s.Conn, err = l.Listen(netip.MustParseAddrPort(addr), o); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(func(p *Packet) { s.take(t, p) }); err != nil {
		t.Fatal(err)
	}
	return s
}

func startLoop(t *testing.T) *Loop {
	t.Helper()
	l, err := NewLoop(&Outbox{}, func(time.Time) {}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run()
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l
}

// collect waits for n datagrams.
func (s *socket) collect(t *testing.T, n int) []received {
	t.Helper()
	deadline := time.After(20 * time.Second)
	var list []received
	for len(list) < n {
		select {
		case r := <-s.came:
			list = append(list, r)
		case <-deadline:
			t.Fatalf("%d of %d datagrams came", len(list), n)
		}
	}
	return list
}

// TestBatchesArriveWholeAndInOrder sends several batches through two sockets in turns, of growing and of equal sizes.
func TestBatchesArriveWholeAndInOrder(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
			if pc, err := net.ListenPacket("udp", at); err != nil {
				t.Logf("%s: %v", at, err)
				continue
			} else {
				pc.Close()
			}
			for _, size := range []func(i int) int{
				func(i int) int { return 2 + i*10 },
				func(i int) int { return 1200 },
				func(i int) int { return 1200 - 7*(i%3) },
				func(i int) int { return 9000 },
				func(i int) int { return 2 },
			} {
				to := open(t, at, Options{ReceiveBuffer: 4 << 20})
				a, b := open(t, at, Options{}), open(t, at, Options{})
				const n = 3*BatchSize + 5
				for i := range n {
					c := a
					if i%7 > 3 {
						c = b
					}
					data := a.out.Scratch(size(i))
					for j := range data {
						data[j] = byte(i + j)
					}
					data[0], data[1] = byte(i), byte(i)
					a.out.Add(c.Conn, data, to.LocalAddr(), netip.Addr{})
				}
				a.out.Flush()
				last := map[netip.AddrPort]int{a.LocalAddr(): -1, b.LocalAddr(): -1}
				for _, r := range to.collect(t, n) {
					i := int(r.data[0])
					want := a
					if i%7 > 3 {
						want = b
					}
					if r.from != want.LocalAddr() || len(r.data) != size(i) || last[r.from] >= i {
						t.Fatalf("datagram %d after %d: %d bytes from %v", i, last[r.from], len(r.data), r.from)
					}
					for j := 2; j < len(r.data); j++ {
						if r.data[j] != byte(i+j) {
							t.Fatalf("datagram %d is broken at %d", i, j)
						}
					}
					last[r.from] = i
				}
			}
		}
	})
}

func TestLongDatagramsAreDroppedWhole(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		var tooLong atomic.Uint64
		to := open(t, "127.0.0.1:0", Options{TooLong: &tooLong})
		c, err := net.Dial("udp", to.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, size := range []int{MaxDatagram + 1, MaxDatagram, 40000, 7} {
			if _, err := c.Write(bytes.Repeat([]byte{byte(size)}, size)); err != nil {
				t.Fatal(err)
			}
		}
		got := to.collect(t, 2)
		if len(got[0].data) != MaxDatagram || len(got[1].data) != 7 || got[1].data[0] != 7 || tooLong.Load() != 2 {
			t.Fatalf("%d and %d bytes, %d dropped", len(got[0].data), len(got[1].data), tooLong.Load())
		}
	})
}

// TestFailureOfOneDatagram sends one that the system refuses between two that it takes.
func TestFailureOfOneDatagram(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		to, from := open(t, "127.0.0.1:0", Options{}), open(t, "127.0.0.1:0", Options{})
		failures := 0
		out := Outbox{Failed: func(error) { failures++ }}
		out.Add(from.Conn, []byte("one"), to.LocalAddr(), netip.Addr{})
		out.Add(from.Conn, []byte("two"), netip.MustParseAddrPort("[2001:db8::1]:9"), netip.Addr{}) // not this socket's family
		out.Add(from.Conn, []byte("two"), netip.MustParseAddrPort("[2001:db8::1]:9"), netip.Addr{})
		out.Add(from.Conn, []byte("three"), to.LocalAddr(), netip.Addr{})
		out.Flush()
		got := to.collect(t, 2)
		if string(got[0].data) != "one" || string(got[1].data) != "three" || failures != 2 {
			t.Fatalf("%q, %q, %d failures", got[0].data, got[1].data, failures)
		}
	})
}

func TestSendOnAClosedSocketFails(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		c := open(t, "127.0.0.1:0", Options{})
		c.Close()
		var list []error
		out := Outbox{Failed: func(err error) { list = append(list, err) }}
		out.Add(c.Conn, []byte("one"), netip.MustParseAddrPort("127.0.0.1:9"), netip.Addr{})
		out.Add(c.Conn, []byte("two"), netip.MustParseAddrPort("127.0.0.1:8"), netip.Addr{})
		out.Flush()
		if len(list) != 2 || !errors.Is(list[0], net.ErrClosed) {
			t.Fatal(list)
		}
	})
}

func TestCloseEndsARead(t *testing.T) {
	c := openReader(t, "127.0.0.1:0", Options{})
	c.Close() // the cleanup waits for the reader
}

// TestClosedSocketIsFree: another can have its address, whoever was reading it.
func TestClosedSocketIsFree(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		c := open(t, "127.0.0.1:0", Options{})
		for range 50 {
			addr := c.LocalAddr()
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(10 * time.Second)
			for {
				pc, err := net.ListenPacket("udp", addr.String())
				if err == nil {
					pc.Close()
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			c = open(t, "127.0.0.1:0", Options{})
			c.out.Add(c.Conn, []byte("self"), c.LocalAddr(), netip.Addr{})
			c.out.Flush()
			if got := c.collect(t, 1); string(got[0].data) != "self" {
				t.Fatalf("%q", got[0].data)
			}
		}
	})
}

func TestReadGoesOnAfterADeadline(t *testing.T) {
	c, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.udp.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(NewPool()); err == nil || errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	out := Outbox{}
	out.Add(c, []byte("self"), c.LocalAddr(), netip.Addr{})
	out.Flush()
	c.udp.SetReadDeadline(time.Now().Add(10 * time.Second))
	if b, err := c.Read(NewPool()); err != nil || string(b.Packets[0].Data) != "self" {
		t.Fatal(b, err)
	}
}

// TestScratchIsNotSharedBeforeAFlush borrows more than there is.
func TestScratchIsNotSharedBeforeAFlush(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		to, from := open(t, "127.0.0.1:0", Options{ReceiveBuffer: 1 << 20}), open(t, "127.0.0.1:0", Options{})
		out := from.out
		for i := range 20 {
			copy(out.Scratch(9000), fmt.Sprintf("%02d", i))
			out.Add(from.Conn, out.scratch[out.used-9000:out.used], to.LocalAddr(), netip.Addr{})
		}
		out.Flush()
		for i, r := range to.collect(t, 20) {
			if string(r.data[:2]) != fmt.Sprintf("%02d", i) {
				t.Fatalf("datagram %d is %q", i, r.data[:2])
			}
		}
	})
}

// TestRuns is how datagrams are put together: one size a run but for a shorter last one, each address's in order.
func TestRuns(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	one, other := new(Conn), new(Conn)
	type datagram struct {
		conn *Conn
		peer netip.AddrPort
		size int
	}
	big := make([]byte, MaxDatagram)
	for i, row := range []struct {
		sends []datagram
		want  string // the runs: their numbers of datagrams and of bytes
	}{
		{[]datagram{{one, a, 9}, {one, a, 9}, {one, a, 9}}, "3/27"},
		{[]datagram{{one, a, 9}, {one, b, 9}, {one, a, 9}, {one, b, 9}}, "2/18 2/18"},
		{[]datagram{{one, a, 9}, {other, a, 9}}, "1/9 1/9"},
		{[]datagram{{one, a, 9}, {one, a, 8}, {one, a, 8}, {one, a, 8}}, "2/17 2/16"},
		{[]datagram{{one, a, 8}, {one, a, 9}, {one, a, 9}}, "1/8 2/18"},
		{[]datagram{{one, a, 8}, {one, a, 0}, {one, a, 8}, {one, a, 8}}, "1/8 1/0 2/16"},
		{[]datagram{{one, a, 9000}, {one, a, 9000}, {one, a, 9000}, {one, a, 9000}, {one, a, 9000}, {one, a, 9000}, {one, a, 9000}, {one, a, 9000}}, "7/63000 1/9000"},
	} {
		var o Outbox
		for _, d := range row.sends {
			o.join(d.conn, big[:d.size], d.peer, netip.Addr{})
		}
		var got []string
		for _, r := range o.runs {
			bytes, count := 0, 0
			for at := r.first; at >= 0; at = o.queue[at].next {
				bytes += len(o.queue[at].data)
				count++
			}
			if bytes != r.bytes || count != r.count {
				t.Errorf("row %d: a run of %d and %d bytes says %d and %d", i, count, bytes, r.count, r.bytes)
			}
			got = append(got, fmt.Sprintf("%d/%d", count, bytes))
		}
		if text := strings.Join(got, " "); text != row.want {
			t.Errorf("row %d: %s, want %s", i, text, row.want)
		}
	}
}
