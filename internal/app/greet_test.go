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

func TestLinksBeginWithWhatMostPeopleReach(t *testing.T) {
	lan, public := []netip.Addr{addr("192.168.1.7"), addr("2001:db8::7")}, []netip.Addr{addr("203.0.113.5"), addr("2001:db8::5")}
	everywhere := netip.MustParseAddrPort("[::]:8080")
	for name, c := range map[string]struct {
		change  func(*config.Config)
		listen  netip.AddrPort
		outside []netip.Addr
		want    string
	}{
		"at home":       {func(*config.Config) {}, everywhere, nil, "https://192.168.1.7:8080"},
		"forwarded":     {func(*config.Config) {}, everywhere, public, "https://203.0.113.5:8080 https://192.168.1.7:8080"},
		"itself public": {func(*config.Config) {}, everywhere, lan[:1], "https://192.168.1.7:8080"},
		"by name": {func(c *config.Config) { c.Names = []string{"box.example"} }, everywhere, public,
			"https://box.example:8080 https://203.0.113.5:8080 https://192.168.1.7:8080"},
		"by URL": {func(c *config.Config) { c.PublicURL, c.Names = "https://call.example", []string{"box.example"} }, everywhere, nil,
			"https://call.example https://box.example:8080 https://192.168.1.7:8080"},
		"by domain":    {func(c *config.Config) { c.Domains = []string{"call.example"} }, netip.MustParseAddrPort("[::]:443"), public, "https://call.example"},
		"this machine": {func(*config.Config) {}, netip.MustParseAddrPort("127.0.0.1:8080"), public, "http://127.0.0.1:8080"},
		"one address":  {func(*config.Config) {}, netip.MustParseAddrPort("192.168.1.7:8080"), public, "https://192.168.1.7:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			c.change(&cfg)
			if got := strings.Join(bases(cfg, c.listen, c.outside, lan), " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestLoggedSetUpLinksReachTheServer: a server without a screen is set up from another device, one on loopback is not.
func TestLoggedSetUpLinksReachTheServer(t *testing.T) {
	for listen, want := range map[string]string{
		"[::]:8080":        "setup=http://localhost:8080/setup?token=T setup-remote=https://192.168.1.7:8080/setup?token=T",
		"192.168.1.7:8080": "setup=https://192.168.1.7:8080/setup?token=T",
		"127.0.0.1:8080":   "setup=http://127.0.0.1:8080/setup?token=T",
	} {
		var out screen
		a := &App{log: slog.New(slog.NewTextHandler(&out, nil))}
		a.logSetup(startPage{Listen: netip.MustParseAddrPort(listen), Addrs: []netip.Addr{addr("192.168.1.7")}, Setup: "T"})
		if said := strings.ReplaceAll(out.String(), `"`, ""); !strings.HasSuffix(strings.TrimSpace(said), "within 30 minutes "+want) {
			t.Errorf("%s: %s", listen, said)
		}
	}
}
