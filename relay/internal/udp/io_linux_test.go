package udp

import (
	"net/netip"
	"testing"
)

// TestLocalAddressIsToldAndKept asks a wildcard socket at an address and answers from another.
func TestLocalAddressIsToldAndKept(t *testing.T) {
	for _, at := range []string{"0.0.0.0:0", "[::]:0"} {
		c := listen(t, at, Options{TellLocal: true})
		asker := listen(t, "127.0.0.1:0", Options{})
		second := netip.MustParseAddr("127.0.0.2")
		out := Outbox{Failed: func(err error) { t.Error(err) }}
		out.Add(asker, []byte("ask"), netip.AddrPortFrom(second, c.LocalAddr().Port()), netip.Addr{})
		out.Flush()
		_, from, local := collect(t, c, 1)
		if local[0] != second || from[0] != asker.LocalAddr() {
			t.Fatalf("%s: from %v to %v", at, from[0], local[0])
		}
		out.Add(c, []byte("answer"), from[0], local[0])
		out.Flush()
		if _, from, _ := collect(t, asker, 1); from[0].Addr() != second {
			t.Fatalf("%s: the answer is from %v", at, from[0])
		}
	}
}

func TestBroadcastIsRefused(t *testing.T) {
	for _, at := range []string{"0.0.0.0:0", "[::]:0"} {
		c := listen(t, at, Options{})
		refused := 0
		out := Outbox{Failed: func(error) { refused++ }}
		for _, to := range []string{"127.255.255.255:9", "255.255.255.255:9"} {
			out.Add(c, []byte("to all"), netip.MustParseAddrPort(to), netip.Addr{})
		}
		out.Flush()
		if refused != 2 {
			t.Errorf("%s: %d of 2 broadcasts were refused", at, refused)
		}
	}
}

func TestReusePortShares(t *testing.T) {
	a := listen(t, "127.0.0.1:0", Options{ReusePort: true})
	b := listen(t, a.LocalAddr().String(), Options{ReusePort: true})
	if a.LocalAddr() != b.LocalAddr() {
		t.Fatal(a.LocalAddr(), b.LocalAddr())
	}
	if c, err := Listen(a.LocalAddr(), Options{}); err == nil {
		c.Close()
		t.Fatal("a socket outside the group has the same address")
	}
}

func TestDontFragment(t *testing.T) {
	c := listen(t, "127.0.0.1:0", Options{})
	for _, on := range []bool{true, false} {
		if err := c.SetDontFragment(on); err != nil {
			t.Fatal(err)
		}
	}
}
