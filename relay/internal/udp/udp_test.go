package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T, addr string, o Options) *Conn {
	t.Helper()
	c, err := Listen(netip.MustParseAddrPort(addr), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// collect reads until n datagrams have come.
func collect(t *testing.T, c *Conn, n int) (data [][]byte, from []netip.AddrPort, local []netip.Addr) {
	t.Helper()
	pool := NewPool()
	c.udp.SetReadDeadline(time.Now().Add(10 * time.Second))
	for len(data) < n {
		b, err := c.Read(pool)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(data), n, err)
		}
		for i := range b.Packets {
			p := &b.Packets[i]
			if framed := p.Framed(); len(framed) != Headroom+len(p.Data) || cap(p.Data) < len(p.Data)+3 || !bytes.Equal(framed[Headroom:], p.Data) {
				t.Fatalf("packet of %d bytes, capacity %d, framed %d", len(p.Data), cap(p.Data), len(framed))
			}
			data, from, local = append(data, bytes.Clone(p.Data)), append(from, p.Peer), append(local, p.Local)
		}
		pool.Put(b)
	}
	return data, from, local
}

// TestBatchesArriveWholeAndInOrder sends several batches through two sockets in turns.
func TestBatchesArriveWholeAndInOrder(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		to, err := Listen(netip.MustParseAddrPort(at), Options{ReceiveBuffer: 1 << 20})
		if err != nil {
			t.Logf("%s: %v", at, err)
			continue
		}
		t.Cleanup(func() { to.Close() })
		a, b := listen(t, at, Options{}), listen(t, at, Options{})
		out := Outbox{Failed: func(err error) { t.Error(err) }}
		const n = 3*BatchSize + 5
		for i := range n {
			c := a
			if i%7 > 3 {
				c = b
			}
			data := out.Scratch(i * 10)
			for j := range data {
				data[j] = byte(i)
			}
			out.Add(c, data, to.LocalAddr(), netip.Addr{})
		}
		out.Flush()
		data, from, _ := collect(t, to, n)
		for i := range data {
			want := a
			if i%7 > 3 {
				want = b
			}
			if from[i] != want.LocalAddr() || !bytes.Equal(data[i], bytes.Repeat([]byte{byte(i)}, i*10)) {
				t.Fatalf("datagram %d: %d bytes from %v", i, len(data[i]), from[i])
			}
		}
	}
}

func TestLongDatagramsAreDroppedWhole(t *testing.T) {
	var tooLong atomic.Uint64
	to := listen(t, "127.0.0.1:0", Options{TooLong: &tooLong})
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
	data, _, _ := collect(t, to, 2)
	if len(data[0]) != MaxDatagram || len(data[1]) != 7 || data[1][0] != 7 || tooLong.Load() != 2 {
		t.Fatalf("%d and %d bytes, %d dropped", len(data[0]), len(data[1]), tooLong.Load())
	}
}

// TestFailureOfOneDatagram sends one that the system refuses between two that it takes.
func TestFailureOfOneDatagram(t *testing.T) {
	to, from := listen(t, "127.0.0.1:0", Options{}), listen(t, "127.0.0.1:0", Options{})
	failures := 0
	out := Outbox{Failed: func(error) { failures++ }}
	out.Add(from, []byte("one"), to.LocalAddr(), netip.Addr{})
	out.Add(from, []byte("two"), netip.MustParseAddrPort("[2001:db8::1]:9"), netip.Addr{}) // not this socket's family
	out.Add(from, []byte("three"), to.LocalAddr(), netip.Addr{})
	out.Flush()
	data, _, _ := collect(t, to, 2)
	if string(data[0]) != "one" || string(data[1]) != "three" || failures != 1 {
		t.Fatalf("%q, %d failures", data, failures)
	}
}

func TestSendOnAClosedSocketFails(t *testing.T) {
	c := listen(t, "127.0.0.1:0", Options{})
	c.Close()
	var list []error
	out := Outbox{Failed: func(err error) { list = append(list, err) }}
	out.Add(c, []byte("one"), netip.MustParseAddrPort("127.0.0.1:9"), netip.Addr{})
	out.Add(c, []byte("two"), netip.MustParseAddrPort("127.0.0.1:9"), netip.Addr{})
	out.Flush()
	if len(list) != 2 || !errors.Is(list[0], net.ErrClosed) {
		t.Fatal(list)
	}
}

func TestCloseEndsARead(t *testing.T) {
	c := listen(t, "127.0.0.1:0", Options{})
	done := make(chan error)
	go func() { _, err := c.Read(NewPool()); done <- err }()
	c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
}

func TestReadGoesOnAfterADeadline(t *testing.T) {
	c := listen(t, "127.0.0.1:0", Options{})
	c.udp.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(NewPool()); err == nil || errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	out := Outbox{}
	out.Add(c, []byte("self"), c.LocalAddr(), netip.Addr{})
	out.Flush()
	if data, _, _ := collect(t, c, 1); string(data[0]) != "self" {
		t.Fatalf("%q", data)
	}
}

// TestScratchIsNotSharedBeforeAFlush borrows more than there is.
func TestScratchIsNotSharedBeforeAFlush(t *testing.T) {
	to, from := listen(t, "127.0.0.1:0", Options{ReceiveBuffer: 1 << 20}), listen(t, "127.0.0.1:0", Options{})
	out := Outbox{Failed: func(err error) { t.Error(err) }}
	for i := range 20 {
		copy(out.Scratch(9000), fmt.Sprintf("%02d", i))
		out.Add(from, out.scratch[out.used-9000:out.used], to.LocalAddr(), netip.Addr{})
	}
	out.Flush()
	data, _, _ := collect(t, to, 20)
	for i := range data {
		if string(data[i][:2]) != fmt.Sprintf("%02d", i) {
			t.Fatalf("datagram %d is %q", i, data[i][:2])
		}
	}
}
