package app

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pion/stun/v2"

	"callbox/internal/config"
	"callbox/internal/nat"
	"callbox/internal/router"
	"callbox/relay"
)

// stunServer tells whoever asks that it is seen at the address of the moment.
func stunServer(t *testing.T, seen *atomic.Pointer[netip.AddrPort]) config.STUNServer {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			m := &stun.Message{Raw: append([]byte(nil), buffer[:n]...)}
			if m.Decode() != nil {
				continue
			}
			at := seen.Load()
			answer := stun.MustBuild(m, stun.BindingSuccess, &stun.XORMappedAddress{IP: at.Addr().AsSlice(), Port: int(at.Port())})
			_, _ = conn.WriteTo(answer.Raw, from)
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return config.STUNServer(conn.LocalAddr().String())
}

// page collects what is written to the terminal.
type terminal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *terminal) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}
func (w *terminal) String() string { w.mu.Lock(); defer w.mu.Unlock(); return w.text.String() }

func TestAddressThatIsFoundOutReachesRelayServersAndClients(t *testing.T) {
	var seen atomic.Pointer[netip.AddrPort]
	see := func(at string) { ap := netip.MustParseAddrPort(at); seen.Store(&ap) }
	see("203.0.113.5:4000")
	cfg := onLoopback(t)
	cfg.Listen = netip.MustParseAddrPort("0.0.0.0:0")
	cfg.MapPort, cfg.STUNServers = config.MapOff, []config.STUNServer{stunServer(t, &seen), stunServer(t, &seen)}
	cfg.TrustedProxy = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	next := cfg
	var page terminal
	r := serveWith(t, cfg, Options{Stdout: &page, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Reload: func() (config.Config, error) { return next, nil }})
	r.addUser("ada", false)
	ada, c := r.logIn("ada"), r.credential()
	conn, _ := r.dial(nil, r.mint("tea", "guest", 3600e9), nil)
	guest := r.join(conn, "tea")
	at := net.JoinHostPort("127.0.0.1", strings.TrimPrefix(r.Addr().String(), "0.0.0.0:"))

	check := func(want string, told bool) {
		t.Helper()
		eventually(t, func() bool { l := r.live.Load().public; return len(l) == 1 && l[0] == addr(want) })
		if told {
			if m := guest.await("ice-servers"); m.ID != "" || len(m.ICEServers) == 0 {
				t.Errorf("connected clients are told %+v", m)
			}
		}
		relayed, err := relayed(t, "udp", at, c.Username, c.Password)
		if err != nil || relayed.(*net.UDPAddr).IP.String() != want {
			t.Errorf("relay at %v, %v, want %s", relayed, err, want)
		}
		// Whoever is in the house has no use for the public address; whoever is not may need it beside the name.
		extra := "turn:" + net.JoinHostPort(want, strings.TrimPrefix(at, "127.0.0.1:")) + "?transport=udp"
		for from, outside := range map[string]bool{"127.0.0.1": false, "192.168.1.44": false, want: false, "198.51.100.7": true} {
			body := r.get(ada, "/api/v1/ice-servers", "X-Forwarded-For", from, "X-Forwarded-Proto", "https", "X-Forwarded-Host", "call.example").Body
			if !strings.Contains(body, "turn:call.example:") || strings.Contains(body, extra) != outside {
				t.Errorf("from %s: %s", from, body)
			}
		}
	}
	check("203.0.113.5", false) // perhaps before the guest came
	eventually(t, func() bool { return strings.Contains(page.String(), "https://203.0.113.5:") })
	see("203.0.113.6:4000")
	r.reload() // has it look now
	check("203.0.113.6", true)

	// What is configured goes before what is found out, and then nobody is asked.
	next.PublicIP = []netip.Addr{addr("203.0.113.9")}
	r.reload()
	eventually(t, func() bool { return !r.network().IPv4.Public.IsValid() })
	if got := r.live.Load().public; len(got) != 1 || got[0] != addr("203.0.113.9") {
		t.Errorf("advertised as %v", got)
	}
	if urls := r.turnURLs(ada); !strings.Contains(urls, "203.0.113.9") || strings.Contains(urls, "203.0.113.6") {
		t.Errorf("URLs %s", urls)
	}
}

func TestNobodyIsAskedOnLoopbackAndInAClusterAndTheRouterOnlyWhereItMay(t *testing.T) {
	cfg := config.Default()
	for name, c := range map[string]struct {
		change  func(*config.Config)
		watched bool
		servers int
		router  bool
	}{
		"default":       {func(*config.Config) {}, true, 2, true},
		"loopback":      {func(c *config.Config) { c.Listen = netip.MustParseAddrPort("127.0.0.1:1") }, false, 2, true},
		"cluster":       {func(c *config.Config) { c.Bus = "redis://h" }, false, 2, true},
		"public-ip":     {func(c *config.Config) { c.PublicIP = []netip.Addr{addr("203.0.113.5")} }, true, 0, true},
		"none":          {func(c *config.Config) { c.STUNServers = []config.STUNServer{config.NoSTUN} }, true, 0, true},
		"map-port off":  {func(c *config.Config) { c.MapPort = config.MapOff }, true, 2, false},
		"IPv6 alone":    {func(c *config.Config) { c.Listen = netip.MustParseAddrPort("[2001:db8::1]:1") }, true, 2, false},
		"both families": {func(c *config.Config) { c.Listen = netip.MustParseAddrPort("[::]:1") }, true, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cfg
			c.change(&cfg)
			a := &App{cfg: cfg}
			a.live.Store(&live{cfg: cfg})
			if w := newWatcher(a); (w != nil) != c.watched {
				t.Errorf("watched: %v", w != nil)
			}
			if p := a.probe(); len(p.Servers) != c.servers || (p.Router != nil) != c.router {
				t.Errorf("asks %v, router: %v", p.Servers, p.Router != nil)
			}
		})
	}
}

func TestWishNamesEveryPortAndAFewOfTheRelay(t *testing.T) {
	r := serve(t, func(c *config.Config) {
		c.TURNListen = []config.Listener{{Network: "tcp", Addr: netip.MustParseAddrPort("127.0.0.1:0")}}
	})
	if w := r.wish(); len(w.Need)+len(w.Extra) != 0 {
		t.Errorf("without an administrator: %+v", w)
	}
	r.addUser("grace", false)
	if w := r.wish(); len(w.Need) != 0 {
		t.Errorf("with a user who is none: %+v", w)
	}
	r.addUser("ada", true)
	w := r.wish()
	port := r.Addr().Port()
	if len(w.Need) != 3 || w.Need[0] != (router.Port{Protocol: "tcp", Number: port}) || w.Need[1] != (router.Port{Protocol: "udp", Number: port}) || w.Need[2].Protocol != "tcp" || w.Need[2].Number == 0 {
		t.Errorf("needs %v", w.Need)
	}
	if len(w.Extra) != mappedRelayPorts || w.Extra[0] != (router.Port{Protocol: "udp", Number: 49152}) {
		t.Errorf("and %v", w.Extra)
	}
}

func TestForwardedPortsInARowAreTheRelays(t *testing.T) {
	report := func(ports ...uint16) (r nat.Report) {
		for _, p := range ports {
			r.Router.Mappings = append(r.Router.Mappings, router.Mapping{Port: router.Port{Protocol: "udp", Number: p}})
		}
		return r
	}
	all := config.PortRange{Low: 49152, High: 65535}
	for _, c := range []struct {
		report nat.Report
		ports  config.PortRange
		want   relay.PortRange
	}{
		{report(8080, 49152, 49153, 49154), all, relay.PortRange{Low: 49152, High: 49154}},
		{report(49153, 49154, 49156), all, relay.PortRange{Low: 49153, High: 49154}},
		{report(8080), all, relay.PortRange{}},
		{report(49152), config.PortRange{}, relay.PortRange{}},
		{report(65535), config.PortRange{Low: 65535, High: 65535}, relay.PortRange{Low: 65535, High: 65535}},
	} {
		if got := forwardedRange(c.report, c.ports); got != c.want {
			t.Errorf("%v: got %v, want %v", c.report.Router.Mappings, got, c.want)
		}
	}
}

func TestWhatWasFoundOutIsSaidInOneLine(t *testing.T) {
	public := []netip.Addr{addr("203.0.113.5")}
	forwarding := nat.Router{Found: true, Kind: router.IGD2, Name: "Home box", Mappings: []router.Mapping{{Port: router.Port{Protocol: "tcp", Number: 8080}}}}
	for name, c := range map[string]struct {
		report nat.Report
		names  []string
		public []netip.Addr
		want   string
	}{
		"forwarded":     {nat.Report{Router: forwarding}, nil, public, "https://203.0.113.5:8080|Home box (upnp igd2) forwards 8080/tcp"},
		"with a name":   {nat.Report{Router: forwarding}, []string{"call.example"}, public, "https://call.example:8080|Home box (upnp igd2) forwards 8080/tcp"},
		"by hand":       {nat.Report{}, nil, public, "https://203.0.113.5:8080|where the router forwards port 8080 (TCP, UDP) to this host"},
		"own address":   {nat.Report{IPv4: nat.Family{Mapping: nat.None}}, nil, nil, "this host has the public address itself"},
		"shared":        {nat.Report{CGNAT: true, Why: "of this"}, nil, nil, "nobody can come in by IPv4: of this. Ask the provider for a public address, or use a server that has one."},
		"conflict":      {nat.Report{Router: nat.Router{Fault: nat.FaultConflict, Err: "taken; do that"}}, nil, public, "https://203.0.113.5:8080|the router does not forward every port: taken; do that"},
		"nothing known": {nat.Report{Err: "nobody answers"}, nil, nil, "the public address is not known: nobody answers"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(describeNetwork(c.report, c.names, c.public, 8080), "|"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
