package nat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

// server answers STUN on loopback; answer makes what is sent back for a request that came from an address, nil: nothing.
func server(t *testing.T, at string, answer func(request *stun.Message, from netip.AddrPort) []byte) string {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			m := &stun.Message{Raw: append([]byte(nil), buffer[:n]...)}
			if m.Decode() != nil {
				continue
			}
			if out := answer(m, from); out != nil {
				_, _ = conn.WriteToUDPAddrPort(out, from)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return conn.LocalAddr().String()
}

// sees is the answer of a server that sees the client at an address; port 0: the one it really has.
func sees(addr string, port int) func(*stun.Message, netip.AddrPort) []byte {
	return func(m *stun.Message, from netip.AddrPort) []byte {
		p := port
		if p == 0 {
			p = int(from.Port())
		}
		return stun.MustBuild(m, stun.BindingSuccess, &stun.XORMappedAddress{IP: net.ParseIP(addr), Port: p}).Raw
	}
}

func silent(*stun.Message, netip.AddrPort) []byte { return nil }

const loopback = "127.0.0.1:0"

func TestMappingIsToldByTwoServers(t *testing.T) {
	type answers []func(*stun.Message, netip.AddrPort) []byte
	for name, c := range map[string]struct {
		servers answers
		public  string
		mapping Mapping
		source  string
		problem string
	}{
		"the same port":    {answers{sees("203.0.113.5", 4000), sees("203.0.113.5", 4000)}, "203.0.113.5", Independent, "stun", ""},
		"another port":     {answers{sees("203.0.113.5", 4000), sees("203.0.113.5", 4001)}, "203.0.113.5", Dependent, "stun", ""},
		"the host's own":   {answers{sees("127.0.0.1", 0), sees("127.0.0.1", 0)}, "127.0.0.1", None, "host", ""},
		"one server":       {answers{sees("203.0.113.5", 4000)}, "203.0.113.5", Unknown, "stun", ""},
		"two addresses":    {answers{sees("203.0.113.5", 1), sees("203.0.113.6", 1)}, "", Dependent, "", "sees 203.0.113.6"},
		"a private one":    {answers{sees("10.0.0.3", 1)}, "", Unknown, "", "not a public address"},
		"a shared one":     {answers{sees("100.64.0.3", 1)}, "", Unknown, "", "not a public address"},
		"one is lying low": {answers{sees("192.168.0.3", 1), sees("203.0.113.5", 1)}, "203.0.113.5", Unknown, "stun", ""},
		"an old server": {answers{func(m *stun.Message, _ netip.AddrPort) []byte {
			return stun.MustBuild(m, stun.BindingSuccess, &stun.MappedAddress{IP: net.ParseIP("203.0.113.5"), Port: 9}).Raw
		}}, "203.0.113.5", Unknown, "stun", ""},
		"an error": {answers{func(m *stun.Message, _ netip.AddrPort) []byte {
			return stun.MustBuild(m, stun.BindingError, stun.CodeServerError).Raw
		}}, "", Unknown, "", "no STUN server answers"},
		"no address": {answers{func(m *stun.Message, _ netip.AddrPort) []byte { return stun.MustBuild(m, stun.BindingSuccess).Raw }}, "", Unknown, "", "no STUN server answers"},
		"of IPv6":    {answers{sees("2001:db8::5", 1)}, "", Unknown, "", "the other family"},
		"nobody":     {nil, "", Unknown, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Network: "udp4", Timeout: 20 * time.Second}
			for _, answer := range c.servers {
				cfg.Servers = append(cfg.Servers, server(t, loopback, answer))
			}
			r, err := Discover(t.Context(), cfg)
			f := r.IPv4
			got := ""
			if f.Public.IsValid() {
				got = f.Public.String()
			}
			if got != c.public || f.Mapping != c.mapping || f.Source != c.source || !strings.Contains(f.Problem, c.problem) || (c.problem == "") != (f.Problem == "") {
				t.Errorf("got %+v", f)
			}
			if (c.public == "") != errors.Is(err, ErrUnknown) || r.Checked.IsZero() {
				t.Errorf("error %v, at %v", err, r.Checked)
			}
			if own := len(r.Addrs()) == 0; own != (c.public == "" || c.mapping == None) {
				t.Errorf("addresses to tell: %v", r.Addrs())
			}
		})
	}
}

func TestRequestThatIsLostIsRepeated(t *testing.T) {
	var n atomic.Int32
	at := server(t, loopback, func(m *stun.Message, from netip.AddrPort) []byte {
		if n.Add(1) == 1 {
			return nil
		}
		return sees("203.0.113.5", 0)(m, from)
	})
	r, err := Discover(t.Context(), Config{Network: "udp4", Servers: []string{at}, Timeout: 20 * time.Second})
	if err != nil || r.IPv4.Public.String() != "203.0.113.5" {
		t.Errorf("got %+v, %v", r.IPv4, err)
	}
}

// Whoever does not know the request's 96 bits, or answers from elsewhere, is not listened to.
func TestForgedAnswerIsNotListenedTo(t *testing.T) {
	other, err := net.ListenPacket("udp4", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	at := server(t, loopback, func(m *stun.Message, from netip.AddrPort) []byte {
		forged := sees("203.0.113.66", 1)(m, from)
		if _, err := other.WriteTo(forged, net.UDPAddrFromAddrPort(from)); err != nil {
			t.Error(err)
		}
		wrong := &stun.Message{Raw: append([]byte(nil), m.Raw...)}
		if err := wrong.Decode(); err != nil {
			t.Error(err)
		}
		wrong.TransactionID[3]++
		return sees("203.0.113.67", 1)(wrong, from)
	})
	r, err := Discover(t.Context(), Config{Network: "udp4", Servers: []string{at}})
	if !errors.Is(err, ErrUnknown) || r.IPv4.Public.IsValid() {
		t.Errorf("got %+v, %v", r.IPv4, err)
	}
}

func TestSilentServersAndNamesEndInTime(t *testing.T) {
	hanging := func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := Discover(ctx, Config{Servers: []string{server(t, loopback, silent), "stun.example:3478"}, Resolve: hanging, Timeout: 500 * time.Millisecond})
	if !errors.Is(err, ErrUnknown) || ctx.Err() != nil {
		t.Fatalf("got %v, %v", err, ctx.Err())
	}
	if len(r.IPv4.Answers) != 2 || r.IPv4.Answers[0].Error == "" || r.IPv4.Answers[1].Error == "" {
		t.Errorf("got %+v", r.IPv4.Answers)
	}
}

func TestNameIsAskedForItsAddressOfEachFamily(t *testing.T) {
	name := func(name, at string) string {
		return name + ":" + strings.TrimPrefix(strings.TrimPrefix(at, "127.0.0.1:"), "[::1]:")
	}
	servers := []string{
		name("four.example", server(t, loopback, sees("203.0.113.5", 7))),
		name("six.example", server(t, "[::1]:0", sees("2001:db8::5", 7))),
	}
	resolve := func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "four.example" {
			return []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}, nil
		}
		return []netip.Addr{netip.IPv6Loopback()}, nil
	}
	r, err := Discover(t.Context(), Config{Servers: servers, Resolve: resolve, Timeout: 20 * time.Second})
	if err != nil || r.IPv4.Public.String() != "203.0.113.5" || r.IPv6.Public.String() != "2001:db8::5" || len(r.Addrs()) != 2 {
		t.Errorf("got %+v, %v", r, err)
	}
	if r.IPv4.Answers[1].Error != errNoAddress.Error() || r.IPv6.Answers[0].Error != errNoAddress.Error() {
		t.Errorf("the other families' answers are %+v and %+v", r.IPv4.Answers[1], r.IPv6.Answers[0])
	}
}

func FuzzBindingAnswer(f *testing.F) {
	var id [stun.TransactionIDSize]byte
	m := stun.MustBuild(stun.NewTransactionIDSetter(id), stun.BindingSuccess, &stun.XORMappedAddress{IP: net.ParseIP("203.0.113.5"), Port: 1})
	f.Add(m.Raw)
	f.Add(stun.MustBuild(stun.NewTransactionIDSetter(id), stun.BindingError, stun.CodeServerError).Raw)
	f.Add(stun.MustBuild(stun.NewTransactionIDSetter(id), stun.BindingSuccess, stun.RawAttribute{Type: stun.AttrXORMappedAddress}).Raw)
	f.Add([]byte{1, 1, 0, 0})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		if got, err := parseBinding(datagram, id); err == nil && (!got.IsValid() || got.Port() == 0) {
			t.Errorf("got %v", got)
		}
	})
}
