package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/bus"
	"callbox/bus/memory"
	"callbox/internal/config"
	"callbox/internal/control"
)

const testPassword = "correct horse battery"

// running is a server on loopback for one test.
type running struct {
	*App
	t    *testing.T
	data string
	stop func() error // asks it to end and waits
}

// onLoopback is a configuration on a free port, with a data directory of the test's own.
func onLoopback(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	cfg.Data = filepath.Join(t.TempDir(), "data")
	cfg.MetricsListen = config.MetricsAddr{}
	cfg.DoctorEvery = 0 // its allocations and connections would be counted
	return cfg
}

func serve(t *testing.T, change func(*config.Config)) *running {
	t.Helper()
	cfg := onLoopback(t)
	if change != nil {
		change(&cfg)
	}
	return serveWith(t, cfg, Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test"})
}

func serveWith(t *testing.T, cfg config.Config, opts Options) *running {
	t.Helper()
	a, err := New(t.Context(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	r := &running{App: a, t: t, data: cfg.Data}
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("stopped with %v", err)
		}
	})
	return r
}

// browser is a client with cookies of its own that follows no redirect.
func (r *running) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	return &http.Client{
		Jar: jar, Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (r *running) url(path string) string { return "http://" + r.Addr().String() + path }

type answer struct {
	Status int
	Header http.Header
	Body   string
}

// code is error.code of a JSON refusal.
func (a answer) code() string {
	var body struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal([]byte(a.Body), &body) != nil || body.Error.Message == "" {
		return ""
	}
	return body.Error.Code
}

func (r *running) do(c *http.Client, method, target, body string, header ...string) answer {
	r.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = r.url(target)
	}
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (r *running) get(c *http.Client, target string, header ...string) answer {
	r.t.Helper()
	return r.do(c, http.MethodGet, target, "", header...)
}

func (r *running) form(c *http.Client, path string, values ...string) answer {
	r.t.Helper()
	form := url.Values{}
	for i := 0; i < len(values); i += 2 {
		form.Set(values[i], values[i+1])
	}
	return r.do(c, http.MethodPost, path, form.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Origin", r.url(""))
}

func (r *running) api(c *http.Client, body string) answer {
	r.t.Helper()
	return r.do(c, http.MethodPost, "/api/v1/login", body, "Content-Type", "application/json")
}

func (r *running) addUser(name string, admin bool) {
	r.t.Helper()
	if err := r.web.users.Add(r.t.Context(), name, testPassword, admin, time.Now()); err != nil {
		r.t.Fatal(err)
	}
}

// logIn returns a browser that holds the user's cookie.
func (r *running) logIn(name string) *http.Client {
	r.t.Helper()
	c := r.browser()
	u, err := url.Parse(r.url("/"))
	if err != nil {
		r.t.Fatal(err)
	}
	value, _ := r.web.sessions.Issue(name, time.Now())
	c.Jar.SetCookies(u, []*http.Cookie{{Name: cookieName, Value: value, Path: "/"}})
	return c
}

func TestSecondServerOnThePortFailsClearly(t *testing.T) {
	r := serve(t, nil)
	cfg := onLoopback(t)
	cfg.Listen = r.Addr()
	if _, err := New(t.Context(), cfg, Options{}); err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("got %v", err)
	}
	// Another program has the port on UDP, and nobody on TCP.
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_ = tcp.Close()
	cfg.Listen = udp.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := New(t.Context(), cfg, Options{}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("UDP taken: %v", err)
	}
	// And nothing is left behind: the directory is free, and so is the TCP port.
	l, err := net.Listen("tcp", cfg.Listen.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	cfg.Listen = r.Addr()
	cfg.Data = r.data
	if _, err := New(t.Context(), cfg, Options{}); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("same directory: %v", err)
	}
}

func TestStopIsCleanAndReadinessGoesFirst(t *testing.T) {
	r := serve(t, nil)
	if a := r.get(r.browser(), "/readyz"); a.Status != http.StatusOK || !strings.Contains(a.Body, `"bus":"ok"`) {
		t.Errorf("ready: %d %s", a.Status, a.Body)
	}
	r.draining.Store(true)
	if a := r.get(r.browser(), "/readyz"); a.Status != http.StatusServiceUnavailable {
		t.Errorf("draining: %d %s", a.Status, a.Body)
	}
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := net.DialTimeout("tcp", r.Addr().String(), time.Second); err == nil {
		t.Error("still listening")
	}
}

func TestRunWithAnEndedContextFreesEverything(t *testing.T) {
	cfg := onLoopback(t)
	for range 2 {
		a, err := New(t.Context(), cfg, Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSocketOfADeadServerIsReplaced(t *testing.T) {
	cfg := onLoopback(t)
	if err := os.Mkdir(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(cfg.Data, control.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	serveWith(t, cfg, Options{})
	if _, err := control.NewClient(cfg.Data).Health(t.Context()); err != nil {
		t.Error(err)
	}
}

// deafBus cannot be started.
type deafBus struct{ bus.Bus }

func (deafBus) Start(bus.Handler) error { return errDeaf }

var errDeaf = errors.New("nobody listens")

func TestBusThatCannotStartEndsTheRunAndFreesEverything(t *testing.T) {
	cfg := onLoopback(t)
	a, err := New(t.Context(), cfg, Options{OpenBus: func(_ context.Context, store *bus.Store) (bus.Bus, error) {
		b, err := memory.NewNetwork().Open(memory.Config{Store: store})
		return deafBus{b}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, errDeaf) {
		t.Errorf("got %v", err)
	}
	l, err := net.Listen("tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestStartPageGoesToTheTerminal(t *testing.T) {
	var out lockedBuffer
	cfg := onLoopback(t)
	r := serveWith(t, cfg, Options{Stdout: &out})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), r.url("/setup?token="+r.setup)) {
		t.Errorf("no set-up link in %s", out.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLocalCertificateFitsTheAddress(t *testing.T) {
	r := serve(t, nil)
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(r.data, "ca.crt"))
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no authority", err)
	}
	for _, name := range []string{"", "localhost"} {
		c, err := tls.Dial("tcp", r.Addr().String(), &tls.Config{RootCAs: pool, ServerName: name})
		if err != nil {
			t.Errorf("name %q: %v", name, err)
			continue
		}
		_ = c.Close()
	}
}
