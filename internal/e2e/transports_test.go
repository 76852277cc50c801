package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"callbox/internal/testkit"

	"github.com/pion/stun/v2"
)

func TestRelayOnlyCallOverTLS(t *testing.T) {
	port := testkit.Port(t, "127.0.0.1")
	s := testkit.Serve(t, testkit.Options{Port: port, Args: []string{"--turns", "on", "--turn-url", fmt.Sprintf("turns:127.0.0.1:%d?transport=tcp", port)}})
	relayCall(t, s, testkit.NewBrowser(t, testkit.IgnoreCertificates()), "tls")
}

// --turns on lists turns: after turn: over UDP and TCP, the order in which a browser should try.
func TestTurnsOnIsListedLast(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Args: []string{"--turns", "on"}})
	token, _, _ := roomToken(t, s, "lobby", "guest")
	_, m, body := iceServers(t, s, s.Client(), token, "?room=lobby")
	var urls []string
	for _, server := range m.Servers {
		urls = append(urls, server.URLs...)
	}
	want := []string{
		"stun:" + s.Addr(),
		"turn:" + s.Addr() + "?transport=udp", "turn:" + s.Addr() + "?transport=tcp", "turns:" + s.Addr() + "?transport=tcp",
	}
	if fmt.Sprint(urls) != fmt.Sprint(want) {
		t.Errorf("%s\nlists %q, want %q", body, urls, want)
	}
}

func TestRelayOnlyCallThroughTheSealedRelay(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Args: []string{"--relay-ports", "none"}})
	relayCall(t, s, testkit.NewBrowser(t), "udp", "tcp")
}

func TestRelayOnlyCallOverIPv6(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Host: "::1"})
	ada, grace := relayCall(t, s, testkit.NewBrowser(t), "udp", "tcp")
	for _, c := range []*caller{ada, grace} {
		links, err := c.links()
		if err != nil {
			t.Fatal(err)
		}
		if len(links) != 1 {
			t.Fatalf("%s: %+v", c.user, links)
		}
		// Chromium asks for no family, so the relayed address is of IPv4 (RFC 8656 section 7.2); the way to the relay is not.
		if !strings.Contains(links[0].RelayURL, "[::1]") {
			t.Errorf("%s: the relay was reached by %q, not over IPv6", c.user, links[0].RelayURL)
		}
	}
}

// behindHAProxy starts one server that advertises nothing but TURN through the load balancer.
func behindHAProxy(t *testing.T, scheme string, arguments ...string) (*testkit.Server, string) {
	t.Helper()
	// The advertised URL names the load balancer, which is started after the server and so needs its port beforehand.
	s := testkit.Serve(t, testkit.Options{Args: append([]string{"--trusted-proxy", "127.0.0.1/32"}, arguments...)})
	front := haproxy(t, []*testkit.Server{s})
	s.Stop()
	s.Options().Args = append(s.Options().Args, "--turn-url", fmt.Sprintf("%s:%s?transport=tcp", scheme, front))
	s.Restart()
	return s, front
}

func TestRelayOnlyCallThroughHAProxy(t *testing.T) {
	for _, tc := range []struct{ scheme, protocol string }{{"turn", "tcp"}, {"turns", "tls"}} {
		t.Run(tc.scheme, func(t *testing.T) {
			s, _ := behindHAProxy(t, tc.scheme, "--turns", "on")
			relayCall(t, s, testkit.NewBrowser(t, testkit.IgnoreCertificates()), tc.protocol)
		})
	}
}

// bindingOverTCP asks a STUN server over TCP from a source address, and returns the address the server saw.
func bindingOverTCP(t *testing.T, source, server string) (netip.AddrPort, net.Conn) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := dialer.DialContext(t.Context(), "tcp4", server)
	if err != nil {
		t.Fatal(err)
	}
	return binding(conn), conn
}

func binding(conn net.Conn) netip.AddrPort {
	request := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
	if _, err := conn.Write(request.Raw); err != nil {
		return netip.AddrPort{}
	}
	client := make([]byte, 1500)
	n, err := conn.Read(client)
	if err != nil {
		return netip.AddrPort{}
	}
	response := &stun.Message{Raw: client[:n]}
	if err := response.Decode(); err != nil {
		return netip.AddrPort{}
	}
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(response); err != nil {
		return netip.AddrPort{}
	}
	address, _ := netip.AddrFromSlice(mapped.IP)
	return netip.AddrPortFrom(address.Unmap(), uint16(mapped.Port))
}

func TestProxyProtocolIsBelievedOnlyFromATrustedProxy(t *testing.T) {
	trusting := testkit.Serve(t, testkit.Options{Args: []string{"--trusted-proxy", "127.0.0.1/32"}})
	front := haproxy(t, []*testkit.Server{trusting})
	saw, conn := bindingOverTCP(t, "127.0.0.9", front)
	defer func() { _ = conn.Close() }()
	if saw != conn.LocalAddr().(*net.TCPAddr).AddrPort() {
		t.Errorf("through the proxy the server saw %v, the client is %v", saw, conn.LocalAddr())
	}

	// The same bytes from an address that is no proxy: the connection ends, and nothing in it is believed or answered.
	header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 192, 0, 2, 1, 127, 0, 0, 1, 0x12, 0x34, 0x56, 0x78)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}
	liar, err := dialer.DialContext(context.Background(), "tcp4", trusting.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = liar.Close() }()
	if _, err := liar.Write(header); err != nil {
		t.Fatal(err)
	}
	if saw := binding(liar); saw.IsValid() {
		t.Errorf("a PROXY header of a stranger was answered, with %v", saw)
	}
}
