package doctor

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

// TestPortInUse: another socket has the port, and this process holds it.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, e := range []Endpoint{
		{"tcp", l.Addr().(*net.TCPAddr).AddrPort(), "listen"},
		{"udp", p.LocalAddr().(*net.UDPAddr).AddrPort(), "turn-listen"},
	} {
		c := listening(false, tryBind([]Endpoint{e}))
		expect(t, c, Fail, "is in use by "+holdsItself, "--"+e.Setting)
	}
}

func TestAddressOfAnotherMachine(t *testing.T) {
	c := listening(false, tryBind([]Endpoint{{"tcp", netip.MustParseAddrPort("203.0.113.77:8080"), "listen"}}))
	expect(t, c, Fail, "cannot be opened", "an address that this machine has")
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	s := Subject{Running: "a server that has lost its sockets", Data: t.TempDir(),
		Endpoints:  []Endpoint{{"tcp", at, "listen"}, {"udp", at, "listen"}},
		Credential: func() Credential { return Credential{"u", "p", "r"} }, Certificate: func(context.Context) Certificate { return Certificate{Kind: LocalCA} },
		Network: func(context.Context) Network { return Network{} },
	}
	r := s.Examine(t.Context(), nil)
	for _, name := range []string{NameListening, NameSTUN, NameRelayUDP, NameRelayTCP, NameRelayTLS, NameCertificate} {
		if c := check(t, r, name); c.Verdict != Fail || c.Remedy == "" {
			t.Errorf("%+v", c)
		}
	}
}

func nobody() Credential { return Credential{"u", "p", "r"} }

func check(t *testing.T, r Report, name string) Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %s in %+v", name, r)
	}
	return r.Checks[i]
}

// TestStranger: something else answers on the UDP port.
func TestStranger(t *testing.T) {
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		buffer := make([]byte, 1500)
		for {
			n, from, err := p.ReadFrom(buffer)
			if err != nil {
				return
			}
			m := &stun.Message{Raw: buffer[:n]}
			if m.Decode() != nil {
				continue
			}
			refusal := stun.MustBuild(stun.NewTransactionIDSetter(m.TransactionID), stun.NewType(m.Type.Method, stun.ClassErrorResponse), stun.CodeServerError)
			_, _ = p.WriteTo(refusal.Raw, from)
		}
	}()
	at := p.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := askBinding(t.Context(), at); err == nil {
		t.Error("an answer without an address is one")
	}
	_, err = tryRelay(t.Context(), "udp", at, nobody)
	expect(t, relayTrip(RelayTrip{Network: "udp", Local: at, LocalErr: err}), Fail, "refused: 500", "log")
	p.Close()
	<-answered
}

// TestSilence: a TCP port that takes connections and says nothing; the context bounds the wait.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			buffer := make([]byte, 100)
			_, _ = c.Read(buffer)
			cancel() // it has asked
			_, _ = c.Read(buffer)
		}
	}()
	_, err = tryRelay(ctx, "tcp", l.Addr().(*net.TCPAddr).AddrPort(), nobody)
	expect(t, relayTrip(RelayTrip{Network: "tcp", Port: 9, LocalErr: err}), Fail, "no answer", "TCP port 9")
}

func TestExaminationEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := Subject{Start: errSilent, Endpoints: []Endpoint{{"tcp", netip.MustParseAddrPort("127.0.0.1:0"), "listen"}}, Data: t.TempDir()}
	r := s.Examine(ctx, func(p Progress) {
		if p.Name == NameDisk {
			cancel()
		}
	})
	if len(r.Checks) != 4 || r.Checks[3].Name != NameData {
		t.Errorf("%+v", r)
	}
}

func TestDataDirectoryIsLookedAt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "data")
	expect(t, data(lookAtData(dir)), OK, "first start makes it", "")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	expect(t, data(lookAtData(dir)), OK, "can be written", "")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, data(lookAtData(file)), Fail, "no directory", "")
	future := time.Now().Add(48 * time.Hour)
	if err := os.Chtimes(file, future, future); err != nil {
		t.Fatal(err)
	}
	// The clock has gone back since the file was written.
	s := Subject{Start: errSilent, Endpoints: []Endpoint{{"tcp", netip.MustParseAddrPort("127.0.0.1:0"), "listen"}}, Data: dir}
	expect(t, check(t, s.Examine(t.Context(), nil), NameClock), Fail, "the data directory was written", "timedatectl")
}

func TestNamesAreLookedUp(t *testing.T) {
	s := Subject{
		Start: errSilent, Endpoints: []Endpoint{{"tcp", netip.MustParseAddrPort("0.0.0.0:0"), "listen"}}, Data: t.TempDir(), Domains: []string{"call.example"},
		Lookup:  func(context.Context, string) ([]netip.Addr, error) { return addrs("::ffff:198.51.100.9"), nil },
		Network: func(context.Context) Network { return Network{Found: addrs("203.0.113.7"), How: "STUN"} },
	}
	expect(t, check(t, s.Examine(t.Context(), nil), NameDNS), Fail, "leads to 198.51.100.9, not to 203.0.113.7", "A and AAAA")
}

func FuzzReadProcTable(f *testing.F) {
	f.Add("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"+
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0 100 0 0 10 0\n", uint16(8080))
	f.Fuzz(func(_ *testing.T, table string, port uint16) { readTable(table, port) })
}
