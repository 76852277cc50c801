package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// home is a house behind a router that speaks UPnP and NAT-PMP, miniupnpd, as many bought ones do. The addresses outside are
// ones that it takes for public; they exist in these namespaces alone.
type home struct {
	t       *testing.T
	router  *testkit.Namespace
	server  *testkit.Namespace // 192.168.1.2
	couch   *testkit.Namespace // another device of the house, 192.168.2.2
	outside *testkit.Namespace // the Internet: 11.0.0.9 and 11.0.0.10
	wan     string             // interface
	daemon  *testkit.Process
	conf    string
}

const (
	homeServer = "192.168.1.2"
	homePublic = "11.0.0.2"
)

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{
		t: t, router: testkit.NewNamespace(t, "router"), server: testkit.NewNamespace(t, "server"),
		couch: testkit.NewNamespace(t, "couch"), outside: testkit.NewNamespace(t, "outside"),
	}
	lan, _ := h.router.Link("192.168.1.1/24", h.server, homeServer+"/24")
	second, _ := h.router.Link("192.168.2.1/24", h.couch, "192.168.2.2/24")
	wan, far := h.router.Link(homePublic+"/24", h.outside, "11.0.0.9/24")
	h.wan = wan
	h.outside.Run("ip", "address", "add", "11.0.0.10/24", "dev", far)
	h.server.Route("default", "192.168.1.1")
	h.couch.Route("default", "192.168.2.1")
	h.router.Route("default", "11.0.0.9")
	h.router.Forward()
	h.router.Nft(fmt.Sprintf(`
table inet filter {
	chain through { type filter hook forward priority filter; policy drop; ct state established,related accept; iifname { %[1]q, %[2]q } accept; jump miniupnpd; }
	chain miniupnpd { }
}
table inet nat {
	chain in { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
	chain out { type nat hook postrouting priority srcnat; oifname %[3]q masquerade; }
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
}
`, lan, second, wan))
	h.conf = filepath.Join(t.TempDir(), "miniupnpd")
	return h
}

// serveRouter starts the router's service. An earlier one ends.
func (h *home) serveRouter(upnp, pmp bool) {
	h.t.Helper()
	yes := map[bool]string{true: "yes", false: "no"}
	if h.daemon != nil {
		h.daemon.Kill()
	}
	text := fmt.Sprintf(`ext_ifname=%s
ext_ip=%s
listening_ip=192.168.1.1
enable_upnp=%s
enable_natpmp=%s
secure_mode=yes
friendly_name=Test router
uuid=8f9b1c44-4b3b-4e0a-9c8a-000000000001
upnp_table_name=filter
upnp_nat_table_name=nat
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`, h.wan, homePublic, yes[upnp], yes[pmp])
	if err := os.WriteFile(h.conf, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.daemon = testkit.Start(h.t, "miniupnpd", h.router.Command("miniupnpd", "-d", "-f", h.conf, "-P", h.conf+".pid"))
	h.daemon.Says(20*time.Second, "HTTP listening|Listening for NAT-PMP")
}

// serve starts callbox in the house; it asks the STUN servers outside.
func (h *home) serve(args ...string) *testkit.Server {
	h.t.Helper()
	// Another callbox on the Internet, at two addresses, is both STUN servers.
	testkit.Serve(h.t, testkit.Options{Name: "stun", Namespace: h.outside, Host: "11.0.0.9", Port: 3478})
	testkit.Serve(h.t, testkit.Options{Name: "stun2", Namespace: h.outside, Host: "11.0.0.10", Port: 3478})
	return testkit.Serve(h.t, testkit.Options{
		Namespace: h.server, Host: homeServer, Port: 8080, Discover: true,
		Args: append([]string{"--stun-server", "11.0.0.9", "--stun-server", "11.0.0.10"}, args...),
	})
}

// network is what /readyz says to who may know.
type network struct {
	IPv4 struct {
		Public, Source, Mapping string
	}
	CGNAT  bool
	Why    string
	Router struct {
		Found                  bool
		Kind, Name, WAN, Error string
		Mappings               []struct {
			Protocol string
			Port     int
		}
	}
	Checked string
}

func networkOf(t *testing.T, s *testkit.Server) network {
	t.Helper()
	response, err := s.Client().Get(s.MetricsURL("/readyz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var out struct{ Network *network }
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil || out.Network == nil {
		t.Fatalf("readyz says %s (%v)", text, err)
	}
	return *out.Network
}

// settled waits for a report.
func (h *home) settled(s *testkit.Server, what string, want func(network) bool) network {
	h.t.Helper()
	var last network
	testkit.Eventually(h.t, 60*time.Second, what, func() error {
		if last = networkOf(h.t, s); !want(last) {
			return fmt.Errorf("the report is %+v", last)
		}
		return nil
	})
	return last
}

// reached says whether somebody outside gets an answer at the public address.
func (h *home) reached(port int) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: h.outside.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get(fmt.Sprintf("https://%s:%d/healthz", homePublic, port))
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// forwarded counts what the router forwards, by its own rules.
func (h *home) forwarded() int {
	h.t.Helper()
	return strings.Count(h.router.Run("nft", "list", "chain", "inet", "nat", "prerouting_miniupnpd"), "dnat")
}

func TestRouterIsAskedOnceThereIsAnAdministrator(t *testing.T) {
	for _, c := range []struct {
		kind      string
		upnp, pmp bool
	}{{"upnp igd2", true, true}, {"nat-pmp", false, true}} {
		t.Run(c.kind, func(t *testing.T) {
			h := newHome(t)
			h.serveRouter(c.upnp, c.pmp)
			s := h.serve("--relay-ports", "49152-49155")
			r := h.settled(s, "the router is found", func(n network) bool { return n.Router.Found })
			if r.Router.Kind != c.kind || r.Router.WAN != homePublic || r.IPv4.Public != homePublic || r.IPv4.Source != "stun" ||
				r.IPv4.Mapping != "endpoint-independent" || r.CGNAT {
				t.Errorf("report %+v", r)
			}
			if c.upnp && r.Router.Name != "Test router" {
				t.Errorf("it is called %q", r.Router.Name)
			}
			if h.forwarded() != 0 {
				t.Fatal("ports are forwarded to a server that nobody is in charge of")
			}
			s.MustCLI(password+"\n", "user", "add", "ada", "--admin", "--password-stdin")
			h.settled(s, "the ports are forwarded", func(n network) bool { return len(n.Router.Mappings) == 6 })
			if n := h.forwarded(); n != 6 {
				t.Errorf("the router has %d rules", n)
			}
			if err := h.reached(8080); err != nil {
				t.Errorf("from outside: %v", err)
			}
			h.callFromOutside(s)

			// The router forgets, as after a restart, and is told again at the next look.
			h.daemon.Kill()
			h.router.Run("nft", "flush", "chain", "inet", "nat", "prerouting_miniupnpd")
			h.router.Run("nft", "flush", "chain", "inet", "filter", "miniupnpd")
			if err := h.reached(8080); err == nil {
				t.Fatal("still reached")
			}
			h.serveRouter(c.upnp, c.pmp)
			testkit.Eventually(t, 60*time.Second, "the router is told again", func() error {
				s.MustCLI("", "reload") // has it look now instead of in five minutes
				if n := h.forwarded(); n != 6 {
					return fmt.Errorf("%d rules", n)
				}
				return h.reached(8080)
			})

			// A crash leaves the ports forwarded; the next start takes them over, and its end removes them.
			s.Kill()
			if n := h.forwarded(); n != 6 {
				t.Errorf("after a crash the router has %d rules", n)
			}
			s.Restart()
			h.settled(s, "the ports are taken over", func(n network) bool { return len(n.Router.Mappings) == 6 && n.Router.Error == "" })
			s.Stop()
			if n := h.forwarded(); n != 0 {
				t.Errorf("left behind: %d rules", n)
			}
		})
	}
}

// callFromOutside relays between two at home, between home and outside, and to somebody outside who has no relay.
func (h *home) callFromOutside(s *testkit.Server) {
	t := h.t
	t.Helper()
	var relays []net.PacketConn
	for _, at := range []struct {
		host   *testkit.Namespace
		server string
	}{{h.couch, homeServer + ":8080"}, {h.server, homeServer + ":8080"}, {h.couch, homeServer + ":8080"}, {h.outside, homePublic + ":8080"}} {
		socket, err := at.host.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = socket.Close() }()
		client, relay := allocate(t, socket, at.server, s.Credential(fmt.Sprint("user", len(relays))))
		defer client.Close()
		defer func() { _ = relay.Close() }()
		relayed := relay.LocalAddr().(*net.UDPAddr)
		if relayed.IP.String() != homePublic || relayed.Port < 49152 || relayed.Port > 49155 {
			t.Errorf("the relayed address %v is none that the router forwards", relayed)
		}
		relays = append(relays, relay)
	}
	passBothWays(t, relays[0], relays[1])
	passBothWays(t, relays[2], relays[3])

	plain, err := h.outside.ListenPacket("udp4", "11.0.0.10:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	for i, relay := range relays {
		if _, err := relay.WriteTo([]byte("permit"), plain.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if ok, _ := hears(t, relay, func() error {
			_, err := plain.WriteTo([]byte("in"), relay.LocalAddr())
			return err
		}); !ok {
			t.Errorf("nothing comes in to relay %d", i)
		}
	}
}

func TestPortOfAnotherDeviceIsToldWithARemedy(t *testing.T) {
	h := newHome(t)
	h.serveRouter(true, false)
	// Another device of the same network has the port.
	h.server.Run("ip", "address", "add", "192.168.1.3/24", "dev", h.device())
	other := testkit.Serve(t, testkit.Options{
		Name: "other", Namespace: h.server, Host: "192.168.1.3", Port: 8080, Discover: true,
		Args: []string{"--stun-server", "none", "--relay-ports", "none"},
	})
	other.MustCLI(password+"\n", "user", "add", "ada", "--admin", "--password-stdin")
	h.settled(other, "the other has the port", func(n network) bool { return len(n.Router.Mappings) == 2 })
	s := h.serve("--relay-ports", "none")
	s.MustCLI(password+"\n", "user", "add", "ada", "--admin", "--password-stdin")
	r := h.settled(s, "the conflict is told", func(n network) bool { return n.Router.Error != "" })
	if !strings.Contains(r.Router.Error, "192.168.1.3") || !strings.Contains(r.Router.Error, "--listen") || len(r.Router.Mappings) != 0 {
		t.Errorf("report %+v", r.Router)
	}
	s.Says(20*time.Second, `the router does not forward every port`)
	if n := h.forwarded(); n != 2 {
		t.Errorf("the router has %d rules", n)
	}
}

// device is the server's interface towards the router.
func (h *home) device() string {
	h.t.Helper()
	fields := strings.Fields(h.server.Run("ip", "-o", "route", "get", "192.168.1.1"))
	at := slices.Index(fields, "dev")
	if at < 0 || at+1 == len(fields) {
		h.t.Fatalf("no route: %q", fields)
	}
	return fields[at+1]
}

// The provider gives the house another address: who is in a relayed call gets relays at the new one without doing anything.
func TestHomeGetsAnotherAddressDuringACall(t *testing.T) {
	h := newHome(t)
	s := h.serve("--map-port", "off")
	at := func(address string) func(network) bool {
		return func(n network) bool { return n.IPv4.Public == address }
	}
	h.settled(s, "the address is known", at(homePublic))
	b := testkit.NewBrowser(t, testkit.InNamespace(h.couch), testkit.IgnoreCertificates())
	var callers []*caller
	for _, user := range []string{"ada", "grace"} {
		s.AddUser(user, password)
		callers = append(callers, logIn(t, b.Page(t, user), s.SecureURL(""), user, "/call/far"))
	}
	for _, c := range callers {
		c.join(true)
	}
	relayedAt := func(address string) func(link) error {
		return func(l link) error {
			if err := relayed("udp", "tcp")(l); err != nil {
				return err
			}
			if l.Address != address {
				return errors.New("the relayed address is not at " + address)
			}
			return nil
		}
	}
	for _, c := range callers {
		c.connected(1, 60*time.Second, relayedAt(homePublic))
	}
	h.router.Run("ip", "address", "del", homePublic+"/24", "dev", h.wan)
	h.router.Run("ip", "address", "add", "11.0.0.3/24", "dev", h.wan)
	h.router.Run("ip", "route", "replace", "default", "via", "11.0.0.9")
	s.MustCLI("", "reload") // has it look now instead of in five minutes
	h.settled(s, "the new address is known", at("11.0.0.3"))
	for _, c := range callers {
		c.connected(1, 60*time.Second, relayedAt("11.0.0.3"))
		c.moving(20 * time.Second)
	}
}

// Nobody answers: neither names nor servers nor a router.
func TestWithoutTheInternetTheServerStartsAtOnceAndSaysSoOnce(t *testing.T) {
	alone, nobody := testkit.NewNamespace(t, "alone"), testkit.NewNamespace(t, "nobody")
	alone.Link("192.168.1.2/24", nobody, "192.168.1.9/24")
	alone.Route("default", "192.168.1.1")
	s := testkit.Serve(t, testkit.Options{Namespace: alone, Host: "192.168.1.2", Port: 8080, Discover: true})
	s.Says(30*time.Second, "the public address is not known")
	for range 3 {
		before := networkOf(t, s).Checked
		s.MustCLI("", "reload")
		testkit.Eventually(t, 30*time.Second, "it has looked again", func() error {
			if networkOf(t, s).Checked == before {
				return errors.New("not yet")
			}
			return nil
		})
	}
	if n := strings.Count(s.Output(), "the public address is not known"); n != 1 {
		t.Errorf("said %d times", n)
	}
}
