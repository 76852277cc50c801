package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/pion/turn/v3"
)

func uclient(t *testing.T, s *testkit.Server, arguments ...string) {
	t.Helper()
	testkit.Uclient(t, func(user string) (string, string) {
		c := s.Credential(user)
		return c.Username, c.Password
	}, arguments...)
}

func TestUclientLosesNothing(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Args: []string{"--allow-peer", "127.0.0.0/8"}})
	port, echo := fmt.Sprint(s.Port), fmt.Sprint(testkit.Port(t, "127.0.0.1"))
	testkit.Start(t, "turnutils_peer", exec.Command(testkit.Tool(t, "turnutils_peer"), "-L", "127.0.0.1", "-p", echo))
	for _, tc := range []struct {
		name      string
		arguments []string
	}{
		{"udp", nil},
		{"tcp", []string{"-t"}},
		{"tls", []string{"-t", "-S"}},
		{"udp, send indications", []string{"-s"}},
		{"tcp, send indications", []string{"-t", "-s"}},
		{"udp, several clients", []string{"-s", "-m", "8"}},
		{"tcp, several clients", []string{"-t", "-s", "-m", "8"}},
		{"tls, several clients", []string{"-t", "-S", "-s", "-m", "8"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			uclient(t, s, append(append([]string{"-e", "127.0.0.1", "-r", echo, "-c", "-n", "50"}, tc.arguments...), "-p", port, "127.0.0.1")...)
		})
	}
	// -y: clients talk to each other through their relays. Not over TLS: with two records in its buffer this client reads
	// one and waits (coturn's own server loses as many to it); TestTLSClientsLoseNothing is there for that.
	for name, arguments := range map[string][]string{"udp": nil, "tcp": {"-t"}} {
		t.Run("client to client over "+name, func(t *testing.T) {
			uclient(t, s, append(append([]string{"-y", "-s", "-c", "-n", "50", "-m", "4"}, arguments...), "-p", port, "127.0.0.1")...)
		})
	}
}

func TestUclientThroughTheSealedRelay(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Args: []string{"--relay-ports", "none"}})
	for name, arguments := range map[string][]string{"udp": nil, "tcp": {"-t"}} {
		t.Run(name, func(t *testing.T) {
			uclient(t, s, append(append([]string{"-y", "-s", "-c", "-n", "50", "-m", "4"}, arguments...), "-p", fmt.Sprint(s.Port), "127.0.0.1")...)
		})
	}
}

// tlsRelay makes an allocation over TLS.
func tlsRelay(t *testing.T, s *testkit.Server, user string) net.PacketConn {
	t.Helper()
	// The certificate is the server's own making; that the stream is TLS is what matters here.
	conn, err := tls.Dial("tcp4", s.Addr(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client, relay := allocate(t, turn.NewSTUNConn(conn), s.Addr(), s.Credential(user))
	t.Cleanup(client.Close)
	t.Cleanup(func() { _ = relay.Close() })
	return relay
}

func TestTLSClientsLoseNothing(t *testing.T) {
	for name, arguments := range map[string][]string{"port range": nil, "sealed": {"--relay-ports", "none"}} {
		t.Run(name, func(t *testing.T) {
			s := testkit.Serve(t, testkit.Options{Args: arguments})
			a, b := tlsRelay(t, s, "a"), tlsRelay(t, s, "b")
			open := []byte("open")
			for range 2 {
				if _, err := a.WriteTo(open, b.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				if _, err := b.WriteTo(open, a.LocalAddr()); err != nil {
					t.Fatal(err)
				}
			}
			const packets = 500
			for way, ends := range map[string][2]net.PacketConn{"there": {a, b}, "back": {b, a}} {
				buffer := make([]byte, 1500)
				for i := range packets {
					want := fmt.Sprintf("%s %d", way, i)
					if _, err := ends[0].WriteTo([]byte(want), ends[1].LocalAddr()); err != nil {
						t.Fatal(err)
					}
					for {
						if err := ends[1].SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
							t.Fatal(err)
						}
						n, _, err := ends[1].ReadFrom(buffer)
						if err != nil {
							t.Fatalf("%s has not arrived: %v", want, err)
						}
						if string(buffer[:n]) == want {
							break
						}
						if string(buffer[:n]) != "open" {
							t.Fatalf("%q instead of %q", buffer[:n], want)
						}
					}
				}
			}
		})
	}
}

func TestBindingIsAnsweredToOtherPeoplesClients(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	for name, arguments := range map[string][]string{
		"turnutils_stunclient":   {"-p", fmt.Sprint(s.Port), "127.0.0.1"},
		"turnutils_natdiscovery": {"-m", "-p", fmt.Sprint(s.Port), "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			// Their exit status is no verdict: they also ask for a second address, which only some servers have.
			out, _ := exec.CommandContext(ctx, testkit.Tool(t, name), arguments...).CombinedOutput()
			if !regexp.MustCompile(`(?i)reflexive addr[^\n]*127\.0\.0\.1`).Match(out) {
				t.Errorf("%s %v heard no address of its own:\n%s", name, arguments, out)
			}
		})
	}
}

// holdAllocation makes an allocation over UDP and returns what gives it back.
func holdAllocation(t *testing.T, s *testkit.Server) func() {
	t.Helper()
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, relay := allocate(t, socket, s.Addr(), s.Credential("holder"))
	return func() { _ = relay.Close(); client.Close(); _ = socket.Close() }
}

// allocates tells whether a credential gets an allocation.
func allocates(t *testing.T, socket net.PacketConn, address string, c testkit.Credential) bool {
	t.Helper()
	client := turnClient(t, socket, address, c)
	defer client.Close()
	relay, err := client.Allocate()
	if err != nil {
		return false
	}
	_ = relay.Close()
	return true
}

// allocate makes an allocation with pion's client over a socket to the server at address.
func allocate(t *testing.T, socket net.PacketConn, address string, c testkit.Credential) (*turn.Client, net.PacketConn) {
	t.Helper()
	client := turnClient(t, socket, address, c)
	relay, err := client.Allocate()
	if err != nil {
		t.Fatalf("allocate at %s: %v", address, err)
	}
	return client, relay
}

func turnClient(t *testing.T, socket net.PacketConn, address string, c testkit.Credential) *turn.Client {
	t.Helper()
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: address, TURNServerAddr: address, Conn: socket,
		Username: c.Username, Password: c.Password, Realm: "callbox",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	return client
}
