package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/pion/turn/v3"
)

// internet is a small one: a server with a public address, and homes behind routers, all joined by one core router.
type internet struct {
	t      *testing.T
	core   *testkit.Namespace
	server *testkit.Namespace
	homes  int
}

const serverAddress = "198.51.100.2"

func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{t: t, core: testkit.NewNamespace(t, "core"), server: testkit.NewNamespace(t, "server")}
	n.core.Forward()
	n.core.Link("198.51.100.1/24", n.server, serverAddress+"/24")
	n.server.Route("default", "198.51.100.1")
	return n
}

// home adds a host behind a NAT that gives every destination another random port and lets nothing in that was not asked for: the symmetric kind.
func (n *internet) home(name string) (host *testkit.Namespace, public string) {
	n.t.Helper()
	n.homes++
	router, host := testkit.NewNamespace(n.t, name+"-router"), testkit.NewNamespace(n.t, name)
	public = fmt.Sprintf("203.0.113.%d", 4*n.homes+2)
	_, outside := n.core.Link(fmt.Sprintf("203.0.113.%d/30", 4*n.homes+1), router, public+"/30")
	router.Route("default", fmt.Sprintf("203.0.113.%d", 4*n.homes+1))
	router.Link(fmt.Sprintf("10.0.%d.1/24", n.homes), host, fmt.Sprintf("10.0.%d.2/24", n.homes))
	host.Route("default", fmt.Sprintf("10.0.%d.1", n.homes))
	router.Forward()
	router.Nft(fmt.Sprintf(`
table ip nat {
	chain out { type nat hook postrouting priority srcnat; oifname %[1]q masquerade fully-random; }
}
table ip guard {
	chain through { type filter hook forward priority filter; policy drop; ct state established,related accept; iifname != %[1]q accept; }
	chain in { type filter hook input priority filter; policy drop; ct state established,related accept; }
}
`, outside))
	return host, public
}

func (n *internet) serve(o testkit.Options) *testkit.Server {
	n.t.Helper()
	o.Namespace, o.Port = n.server, 443
	if o.Host == "" {
		o.Host = serverAddress
	}
	return testkit.Serve(n.t, o)
}

// reflexive asks the server from which address a socket's packets come to it.
func reflexive(t *testing.T, socket net.PacketConn, server string) net.Addr {
	t.Helper()
	client, err := turn.NewClient(&turn.ClientConfig{STUNServerAddr: server, Conn: socket})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	address, err := client.SendBindingRequest()
	if err != nil {
		t.Fatalf("binding at %s: %v", server, err)
	}
	return address
}

// hears tells whether something sent with send arrives at a socket within a second.
func hears(t *testing.T, socket net.PacketConn, send func() error) (bool, net.Addr) {
	t.Helper()
	buffer := make([]byte, 1500)
	for range 5 {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		if err := socket.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, from, err := socket.ReadFrom(buffer)
		if err == nil {
			return true, from
		}
		var timeout net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) && (!errors.As(err, &timeout) || !timeout.Timeout()) {
			t.Fatal(err)
		}
	}
	return false, nil
}

// passBothWays sends through two relays to each other.
func passBothWays(t *testing.T, a, b net.PacketConn) {
	t.Helper()
	// The first packet each way opens the permission.
	for range 2 {
		if _, err := a.WriteTo([]byte("open"), b.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.WriteTo([]byte("open"), a.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for _, way := range []struct {
		name     string
		from, to net.PacketConn
	}{{"there", a, b}, {"back", b, a}} {
		ok, from := hears(t, way.to, func() error {
			_, err := way.from.WriteTo([]byte(way.name), way.to.LocalAddr())
			return err
		})
		if !ok {
			t.Fatalf("nothing came %s", way.name)
		}
		if from.String() != way.from.LocalAddr().String() {
			t.Errorf("%s: from %v, want %v", way.name, from, way.from.LocalAddr())
		}
	}
}

func TestSymmetricNATsMeetOnTheRelay(t *testing.T) {
	for _, plane := range []string{"auto", "portable"} {
		t.Run(plane, func(t *testing.T) { symmetricNATsMeet(t, plane) })
	}
}

func symmetricNATsMeet(t *testing.T, plane string) {
	n := newInternet(t)
	s := n.serve(testkit.Options{Args: []string{"--relay-plane", plane}})
	left, leftPublic := n.home("left")
	right, _ := n.home("right")

	// Without a relay: each learns its public address and sends to the other's. The routers give other ports, so nothing meets.
	sockets := make([]net.PacketConn, 2)
	public := make([]net.Addr, 2)
	for i, host := range []*testkit.Namespace{left, right} {
		socket, err := host.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		public[i] = reflexive(t, socket, s.Addr())
		// The probe's reader ends with its socket; the router still knows the same port of the host.
		_ = socket.Close()
		if socket, err = host.ListenPacket("udp4", socket.LocalAddr().String()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = socket.Close() }()
		sockets[i] = socket
	}
	if host, _, _ := net.SplitHostPort(public[0].String()); host != leftPublic {
		t.Fatalf("the reflexive address is %v, not of the router %s", public[0], leftPublic)
	}
	for i := range 2 {
		if ok, from := hears(t, sockets[i], func() error {
			for j := range 2 {
				if _, err := sockets[j].WriteTo([]byte("punch"), public[1-j]); err != nil {
					return err
				}
			}
			return nil
		}); ok {
			t.Fatalf("these NATs are not symmetric: %v came through", from)
		}
	}

	// With it.
	relays := make([]net.PacketConn, 2)
	for i, host := range []*testkit.Namespace{left, right} {
		socket, err := host.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = socket.Close() }()
		client, relay := allocate(t, socket, s.Addr(), s.Credential(fmt.Sprint("user", i)))
		defer client.Close()
		defer func() { _ = relay.Close() }()
		relays[i] = relay
	}
	passBothWays(t, relays[0], relays[1])
}

func TestBrowsersBehindSymmetricNATsAreRelayed(t *testing.T) {
	n := newInternet(t)
	s := n.serve(testkit.Options{})
	left, _ := n.home("left")
	right, _ := n.home("right")
	callers := browsers(t, s, left, right)
	for _, c := range callers {
		c.join(false)
	}
	for _, c := range callers {
		c.connected(1, 60*time.Second, func(l link) error {
			// One side's own relay, or both: what cannot be is a path without any.
			if l.Local != "relay" && l.Remote != "relay" {
				return errors.New("two symmetric NATs were passed without a relay")
			}
			if !strings.HasPrefix(l.Path, "relay ") {
				return fmt.Errorf("the page calls the path %q", l.Path)
			}
			return nil
		})
		c.moving(20 * time.Second)
	}
}

// browsers opens the call page in one Chromium on each host, over https.
func browsers(t *testing.T, s *testkit.Server, hosts ...*testkit.Namespace) []*caller {
	t.Helper()
	var all []*caller
	for i, user := range []string{"ada", "grace"}[:len(hosts)] {
		s.AddUser(user, password)
		b := testkit.NewBrowser(t, testkit.InNamespace(hosts[i]), testkit.IgnoreCertificates())
		all = append(all, logIn(t, b.Page(t, user), s.SecureURL(""), user, "/call/far"))
	}
	return all
}

// onlyTCP443 is a firewall on a host that lets nothing out but TCP to port 443.
func onlyTCP443(host *testkit.Namespace) {
	host.Nft(`
table ip strict {
	chain out { type filter hook output priority filter; policy drop; oifname "lo" accept; ct state established,related accept; tcp dport 443 accept; }
}
`)
}

func TestFirewallThatLetsOnlyTCP443Out(t *testing.T) {
	n := newInternet(t)
	s := n.serve(testkit.Options{Args: []string{"--turns", "on"}})
	strict, _ := n.home("strict")
	onlyTCP443(strict)
	free, _ := n.home("free")

	stream, err := strict.Dial(t.Context(), "tcp4", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	// The certificate is the server's own making; that the stream is TLS is what matters here.
	secured := tls.Client(stream, &tls.Config{InsecureSkipVerify: true})
	if err := secured.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = secured.Close() }()
	client, relay := allocate(t, turn.NewSTUNConn(secured), s.Addr(), s.Credential("strict"))
	defer client.Close()
	defer func() { _ = relay.Close() }()
	socket, err := free.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	other, otherRelay := allocate(t, socket, s.Addr(), s.Credential("free"))
	defer other.Close()
	defer func() { _ = otherRelay.Close() }()
	passBothWays(t, relay, otherRelay)
}

func TestBrowserBehindAFirewallThatLetsOnlyTCP443Out(t *testing.T) {
	n := newInternet(t)
	s := n.serve(testkit.Options{Args: []string{"--turns", "on", "--turn-url", "turns:" + serverAddress + ":443?transport=tcp"}})
	strict, _ := n.home("strict")
	onlyTCP443(strict)
	free, _ := n.home("free")
	callers := browsers(t, s, strict, free)
	for _, c := range callers {
		c.join(false)
	}
	callers[0].connected(1, 60*time.Second, func(l link) error {
		if l.Local != "relay" || l.Protocol != "tls" || l.Path != "relay tls" {
			return errors.New("not relayed over TLS")
		}
		return nil
	})
	callers[1].connected(1, 60*time.Second, func(link) error { return nil })
	for _, c := range callers {
		c.moving(20 * time.Second)
	}
}

// The server has only a private address; a router in front maps a public one to it, port for port.
func TestServerBehindOneToOneNAT(t *testing.T) {
	n := newInternet(t)
	inside := testkit.NewNamespace(t, "inside")
	gateway := n.server // holds the public address; the server itself is behind it
	gateway.Forward()
	gateway.Link("10.9.0.1/24", inside, "10.9.0.2/24")
	inside.Route("default", "10.9.0.1")
	gateway.Nft(fmt.Sprintf(`
table ip onetoone {
	chain in { type nat hook prerouting priority dstnat; ip daddr %[1]s dnat to 10.9.0.2; }
	chain out { type nat hook postrouting priority srcnat; ip saddr 10.9.0.2 snat to %[1]s; }
}
`, serverAddress))
	s := testkit.Serve(t, testkit.Options{
		Namespace: inside, Host: "10.9.0.2", Port: 443,
		Args: []string{"--public-ip", serverAddress, "--allow-peer", "203.0.113.0/24"},
	})
	outside := net.JoinHostPort(serverAddress, "443")
	left, _ := n.home("left")
	right, _ := n.home("right")
	relays := make([]net.PacketConn, 2)
	for i, host := range []*testkit.Namespace{left, right} {
		socket, err := host.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = socket.Close() }()
		client, relay := allocate(t, socket, outside, s.Credential(fmt.Sprint("user", i)))
		defer client.Close()
		defer func() { _ = relay.Close() }()
		relays[i] = relay
		if host, _, _ := net.SplitHostPort(relay.LocalAddr().String()); host != serverAddress {
			t.Fatalf("the relayed address is %v, not at the public address", relay.LocalAddr())
		}
	}
	passBothWays(t, relays[0], relays[1])

	// A peer that is no client of the relay reaches the relayed address from outside, through the mapping.
	plain, err := n.core.ListenPacket("udp4", "203.0.113.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	if _, err := relays[0].WriteTo([]byte("open"), plain.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if ok, from := hears(t, plain, func() error {
		_, err := relays[0].WriteTo([]byte("out"), plain.LocalAddr())
		return err
	}); !ok || from.String() != relays[0].LocalAddr().String() {
		t.Fatalf("out: %v from %v, want from %v", ok, from, relays[0].LocalAddr())
	}
	if ok, _ := hears(t, relays[0], func() error {
		_, err := plain.WriteTo([]byte("in"), relays[0].LocalAddr())
		return err
	}); !ok {
		t.Fatal("nothing came in to the relayed address")
	}
}

func TestPlainHTTPFromAnotherHostLeadsToHTTPS(t *testing.T) {
	n := newInternet(t)
	s := n.serve(testkit.Options{})
	home, _ := n.home("home")
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: home.Dial},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       10 * time.Second,
	}
	for path, want := range map[string]string{"/": s.SecureURL("/"), "/call/x?y=1": s.SecureURL("/call/x?y=1"), "/healthz": "", "/readyz": ""} {
		response, err := client.Get(s.URL(path))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		// 443 is the port of https and need not be named.
		to := strings.Replace(response.Header.Get("Location"), serverAddress+"/", serverAddress+":443/", 1)
		if to != want || (want == "") != (response.StatusCode == http.StatusOK) {
			t.Errorf("%s: %s to %q, want %q", path, response.Status, to, want)
		}
	}
}
