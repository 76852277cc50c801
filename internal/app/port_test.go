package app

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"callbox/internal/localca"
)

// servedPort is a port on loopback with an HTTP server behind it that says what it sees.
type servedPort struct {
	*port
	addr    string
	streams chan net.Conn
}

func servePort(t *testing.T, change func(*portConfig)) *servedPort {
	t.Helper()
	ca, err := localca.Open(t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &servedPort{addr: l.Addr().String(), streams: make(chan net.Conn, 16)}
	cfg := portConfig{
		Listener: l,
		TLS:      &tls.Config{GetCertificate: ca.GetCertificate, NextProtos: []string{"h2", "http/1.1"}},
		Stream:   func(c net.Conn) { s.streams <- c },
		HTTP:     true,
		Log:      slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	s.port = newPort(cfg)
	server := &http.Server{
		ConnContext: connContext,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			secure, _ := r.Context().Value(secureKey{}).(bool)
			if r.TLS != nil && !secure {
				http.Error(w, "TLS that the context does not know of", http.StatusInternalServerError)
				return
			}
			_, _ = io.WriteString(w, r.Proto+" "+map[bool]string{true: "tls", false: "plain"}[secure]+" "+r.RemoteAddr)
		}),
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.run(); err != nil {
			t.Errorf("port: %v", err)
		}
	})
	wg.Go(func() { _ = server.Serve(s.http()) })
	t.Cleanup(func() {
		s.close()
		_ = server.Close()
		wg.Wait()
		for {
			select {
			case c := <-s.streams:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return s
}

func get(t *testing.T, url string, h2 bool) string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestFirstByteDecidesTheProtocol(t *testing.T) {
	s := servePort(t, nil)
	for _, c := range []struct {
		url  string
		h2   bool
		want string
	}{
		{"http://" + s.addr, false, "HTTP/1.1 plain"},
		{"https://" + s.addr, false, "HTTP/1.1 tls"},
		{"https://" + s.addr, true, "HTTP/2.0 tls"},
	} {
		if got := get(t, c.url, c.h2); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.url, got, c.want)
		}
	}
	stun := []byte{0x00, 0x01, 0x00, 0x00}
	plain, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	session, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for name, c := range map[string]net.Conn{"tcp": plain, "tls": session} {
		if _, err := c.Write(stun); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(stun))
		stream := <-s.streams
		if _, err := io.ReadFull(stream, got); err != nil || string(got) != string(stun) {
			t.Errorf("%s: the relay read %x, %v", name, got, err)
		}
		_ = stream.Close()
	}
}

func TestTurnListenerServesNoHTTP(t *testing.T) {
	s := servePort(t, func(c *portConfig) { c.HTTP, c.StartTLS = false, true })
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{0x00, 0x01}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a TLS listener answered without TLS")
	}
}

func proxied(t *testing.T, addr, source string, tlvs ...proxyproto.TLV) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.9:443")))
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	return c
}

func padding(n int) proxyproto.TLV {
	return proxyproto.TLV{Type: proxyproto.PP2_TYPE_NOOP, Value: make([]byte, n)}
}

func loopback(a netip.Addr) bool { return a.IsLoopback() }

func TestProxyHeaderNamesTheClientForEveryProtocol(t *testing.T) {
	s := servePort(t, func(c *portConfig) { c.Trusted = loopback })
	c := proxied(t, s.addr, "198.51.100.7:1234", padding(100))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if string(body) != "HTTP/1.1 plain 198.51.100.7:1234" {
		t.Errorf("got %q", body)
	}

	c = proxied(t, s.addr, "[2001:db8::7]:99")
	session := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	if _, err := session.Write([]byte{0x00, 0x01}); err != nil {
		t.Fatal(err)
	}
	stream := <-s.streams
	defer stream.Close()
	if got := stream.RemoteAddr().String(); got != "[2001:db8::7]:99" {
		t.Errorf("the relay saw %s", got)
	}
}

func TestProxySaysThatItSpokeTLSWithTheClient(t *testing.T) {
	s := servePort(t, func(c *portConfig) { c.Trusted = loopback })
	ssl, err := tlvparse.PP2SSL{
		Client: tlvparse.PP2_BITFIELD_CLIENT_SSL,
		TLV:    []proxyproto.TLV{{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte("TLSv1.3")}},
	}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	c := proxied(t, s.addr, "198.51.100.7:1234", ssl)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "HTTP/1.1 tls 198.51.100.7:1234" {
		t.Errorf("got %q", body)
	}
}

func TestProxyHeaderOfAStrangerIsRefused(t *testing.T) {
	s := servePort(t, nil)
	c := proxied(t, s.addr, "198.51.100.7:1234")
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("answered")
	}
}

func TestProxyHeaderThatIsTooLongIsRefused(t *testing.T) {
	s := servePort(t, func(c *portConfig) { c.Trusted = loopback })
	c := proxied(t, s.addr, "198.51.100.7:1234", padding(proxyMax))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("answered")
	}
}

func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	s := servePort(t, func(c *portConfig) { c.PerAddress = 2 })
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{0x00}); err != nil {
			t.Fatal(err)
		}
		held = append(held, <-s.streams)
	}
	third, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Fatal("a third connection was let in")
	}
	_ = held[0].Close()
	_ = held[0].Close() // twice counts once
	if got := get(t, "http://"+s.addr, false); !strings.Contains(got, "plain") {
		t.Errorf("after one left: %q", got)
	}
	_ = held[1].Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, n := range s.counts {
		if n > 1 { // the HTTP client's own may still be closing
			t.Errorf("%v still counts %d", addr, n)
		}
	}
}

// failingListener gives errors before it gives connections.
type failingListener struct {
	errs  chan error
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *failingListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, err
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *failingListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *failingListener) Addr() net.Addr { return &net.TCPAddr{} }

func TestAcceptErrorsBackOffAndPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failingListener{errs: make(chan error, 20), conns: make(chan net.Conn), done: make(chan struct{})}
		for range 20 {
			l.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		streams := make(chan net.Conn, 1)
		p := newPort(portConfig{Listener: l, Stream: func(c net.Conn) { streams <- c }, Log: slog.New(slog.DiscardHandler)})
		ended := make(chan error, 1)
		go func() { ended <- p.run() }()
		start := time.Now()
		client, server := net.Pipe()
		l.conns <- server
		go func() { _, _ = client.Write([]byte{0x00}) }()
		(<-streams).Close()
		if waited := time.Since(start); waited < 5*time.Second || waited > 20*time.Second {
			t.Errorf("20 failures took %v: neither a spin nor a standstill is right", waited)
		}
		if got := p.stats.AcceptFailures.Load(); got != 20 {
			t.Errorf("counted %d failures", got)
		}
		p.close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = client.Close()
	})
}

func TestSilentConnectionIsClosedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failingListener{conns: make(chan net.Conn), done: make(chan struct{})}
		p := newPort(portConfig{Listener: l, HTTP: true, Log: slog.New(slog.DiscardHandler)})
		ended := make(chan error, 1)
		go func() { ended <- p.run() }()
		client, server := net.Pipe()
		l.conns <- server
		start := time.Now()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(start); waited != firstByteTimeout {
			t.Errorf("closed after %v", waited)
		}
		if p.stats.Timeout.Load() != 1 {
			t.Error("not counted as a timeout")
		}
		p.close()
		<-ended
	})
}

func TestCloseEndsConnectionsNobodyTookOver(t *testing.T) {
	s := servePort(t, nil)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	get(t, "http://"+s.addr, false) // the accept loop has passed the silent one
	s.close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
}
