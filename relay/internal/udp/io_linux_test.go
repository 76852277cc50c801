package udp

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestLocalAddressIsToldAndKept asks a wildcard socket at an address and answers from another.
func TestLocalAddressIsToldAndKept(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		for _, at := range []string{"0.0.0.0:0", "[::]:0"} {
			c := open(t, at, Options{TellLocal: true})
			asker := open(t, "127.0.0.1:0", Options{})
			second := netip.MustParseAddr("127.0.0.2")
			asker.out.Add(asker.Conn, []byte("ask"), netip.AddrPortFrom(second, c.LocalAddr().Port()), netip.Addr{})
			asker.out.Flush()
			got := c.collect(t, 1)[0]
			if got.local != second || got.from != asker.LocalAddr() {
				t.Fatalf("%s: from %v to %v", at, got.from, got.local)
			}
			for range 3 {
				c.out.Add(c.Conn, []byte("answer"), got.from, got.local)
			}
			c.out.Flush()
			for _, r := range asker.collect(t, 3) {
				if r.from.Addr() != second {
					t.Fatalf("%s: the answer is from %v", at, r.from)
				}
			}
		}
	})
}

func TestBroadcastIsRefused(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		for _, at := range []string{"0.0.0.0:0", "[::]:0"} {
			c := open(t, at, Options{})
			refused := 0
			out := Outbox{Failed: func(error) { refused++ }}
			for _, to := range []string{"127.255.255.255:9", "255.255.255.255:9"} {
				out.Add(c.Conn, []byte("to all"), netip.MustParseAddrPort(to), netip.Addr{})
			}
			out.Flush()
			if refused != 2 {
				t.Errorf("%s: %d of 2 broadcasts were refused", at, refused)
			}
		}
	})
}

func TestReusePortShares(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		a := open(t, "127.0.0.1:0", Options{ReusePort: true})
		b := open(t, a.LocalAddr().String(), Options{ReusePort: true})
		if a.LocalAddr() != b.LocalAddr() {
			t.Fatal(a.LocalAddr(), b.LocalAddr())
		}
		if c, err := Listen(a.LocalAddr(), Options{}); err == nil {
			c.Close()
			t.Fatal("a socket outside the group has the same address")
		}
	})
}

func TestDontFragment(t *testing.T) {
	kinds(t, func(t *testing.T, open func(*testing.T, string, Options) *socket) {
		c := open(t, "127.0.0.1:0", Options{})
		for _, on := range []bool{true, false} {
			if err := c.SetDontFragment(on); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestRefusedRunIsSentOneByOne gives the kernel a run that makes more pieces than it takes.
func TestRefusedRunIsSentOneByOne(t *testing.T) {
	l := startLoop(t)
	if !l.gso {
		if os.Getenv("CI") != "" {
			t.Fatal("this kernel has no UDP GSO")
		}
		t.Skip("this kernel has no UDP GSO")
	}
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		from, err := l.Listen(netip.MustParseAddrPort(at), Options{})
		if err != nil {
			t.Fatal(err)
		}
		to := openReader(t, "127.0.0.1:0", Options{})
		out := Outbox{Failed: func(err error) { t.Error(err) }}
		for _, text := range []string{"one", "two", "six"} {
			out.Add(from, []byte(strings.Repeat(text, 50)), to.LocalAddr(), netip.MustParseAddr("127.0.0.1"))
		}
		if len(out.runs) != 1 {
			t.Fatalf("%d runs", len(out.runs))
		}
		out.runs[0].size = 1
		out.Flush()
		for i, r := range to.collect(t, 3) {
			if want := []string{"one", "two", "six"}[i]; string(r.data) != strings.Repeat(want, 50) {
				t.Fatalf("%q, want %q", r.data, want)
			}
		}
	}
}

// TestLoopOfManySockets closes sockets of a loop while packets come to them and others take their place.
func TestLoopOfManySockets(t *testing.T) {
	l := startLoop(t)
	sender, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	for i := range 200 {
		c, err := l.Listen(netip.MustParseAddrPort("127.0.0.1:0"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		came := make(chan string, 100)
		if err := c.Start(func(p *Packet) { came <- string(p.Data) }); err != nil {
			t.Fatal(err)
		}
		name := string(rune('a' + i%26))
		for range 10 {
			if _, err := sender.WriteTo([]byte(name), net.UDPAddrFromAddrPort(c.LocalAddr())); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-came; got != name {
			t.Fatalf("socket %s got what was for %s", name, got)
		}
		c.Close()
		if err := c.Start(nil); err == nil {
			t.Fatal("a closed socket was started")
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.members) > 2 {
		t.Fatalf("%d places for one socket at a time", len(l.members))
	}
}

// TestGatheredGroup: every datagram comes to the first socket of a group, until it is spread again.
func TestGatheredGroup(t *testing.T) {
	first := openLoop(t, "127.0.0.1:0", Options{ReusePort: true})
	second := openLoop(t, first.LocalAddr().String(), Options{ReusePort: true})
	if err := second.Gather(true); err != nil {
		t.Fatal(err)
	}
	ask := func() {
		for range 64 {
			c, err := net.Dial("udp", first.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	}
	ask()
	first.collect(t, 64)
	if err := second.Gather(false); err != nil {
		t.Fatal(err)
	}
	ask()
	second.collect(t, 1)
	first.collect(t, 1)
}
