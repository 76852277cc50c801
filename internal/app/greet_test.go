package app

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"callbox/internal/config"
)

// screen is a terminal.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestSetUpLinkIsACodeForPhonesThatReachTheServer(t *testing.T) {
	const colour = "\x1b[38;5;16;48;5;231m"
	for name, c := range map[string]struct {
		change func(*config.Config)
		lines  int
		want   bool
	}{
		"on the network": {func(c *config.Config) { c.PublicURL = "https://call.example" }, 40, true},
		"switched off":   {func(c *config.Config) { c.PublicURL, c.QR = "https://call.example", config.Off }, 40, false},
		"low terminal":   {func(c *config.Config) { c.PublicURL = "https://call.example" }, 12, false},
		"this machine":   {func(*config.Config) {}, 40, false}, // a phone's localhost is the phone
	} {
		t.Run(name, func(t *testing.T) {
			cfg := onLoopback(t)
			c.change(&cfg)
			var out screen
			r := serveWith(t, cfg, Options{
				Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test",
				Stdout: &out, TerminalSize: func() (int, int) { return 80, c.lines },
			})
			eventually(t, func() bool { return strings.Contains(out.String(), "Stop with Ctrl-C") })
			if err := r.stop(); err != nil { // after it nothing is written any more
				t.Fatal(err)
			}
			if got := strings.Contains(out.String(), colour); got != c.want {
				t.Errorf("code shown: %v\n%s", got, out.String())
			}
		})
	}
}

func TestLinksBeginWithTheURLThatWasConfigured(t *testing.T) {
	p := startPage{Listen: netip.MustParseAddrPort("[::]:8080"), Addrs: []netip.Addr{addr("192.168.1.7")}, Names: []string{"call.example"}, Setup: "x"}
	if got := p.setupForPhone(); got != "https://call.example:8080/setup?token=x" {
		t.Errorf("by name: %s", got)
	}
	p.URL = "https://public.example"
	want := "https://public.example https://call.example:8080 https://192.168.1.7:8080"
	if got := strings.Join(p.remote(), " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := p.setupURL(); got != "http://localhost:8080/setup?token=x" {
		t.Errorf("on this machine: %s", got)
	}
	cfg := config.Default()
	cfg.Listen = netip.MustParseAddrPort("127.0.0.1:8080")
	if got := LinkBases(cfg); len(got) != 1 || got[0] != "http://127.0.0.1:8080" {
		t.Errorf("a server for this machine alone: %v", got)
	}
}
