package relay

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// TestCoturnClient runs a client that others wrote against the relay: every packet must come back.
func TestCoturnClient(t *testing.T) {
	peer := echo(t, "127.0.0.1:0")
	for _, sealed := range []bool{false, true} {
		s := newServer(t, func(c *Config) {
			allowLoopback(c)
			if sealed {
				c.Ports = PortRange{}
			}
		})
		for _, run := range []struct {
			name   string
			args   string
			sealed bool // works without relay sockets
		}{
			{"udp", "-m 1", false},
			{"tcp", "-m 1 -t", false},
			{"udp indications", "-m 4 -s", false},
			{"tcp indications", "-m 4 -t -s", false},
			{"udp client to client", "-m 2 -y", true},
			{"tcp client to client", "-m 2 -t -y", true},
			{"udp client to client indications", "-m 4 -y -s", true},
			{"udp dont-fragment", "-m 2 -s -g", false},
		} {
			if sealed && !run.sealed {
				continue
			}
			name := run.name
			if sealed {
				name = "sealed " + name
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				port := int(s.Addr().Port())
				if strings.Contains(run.args, "-t") {
					port = s.tcp.Addr().(*net.TCPAddr).Port
				}
				t.Cleanup(func() {
					if t.Failed() {
						t.Logf("%+v", s.Stats())
					}
				})
				testkit.Uclient(t, func(user string) (string, string) { return "1:" + user, password("1:" + user) },
					append(strings.Fields(run.args), "-e", "127.0.0.1", "-r", strconv.Itoa(peer.Port), "-c", "-n", "50",
						"-p", strconv.Itoa(port), "127.0.0.1")...)
			})
		}
	}
}

// echo sends back what it gets.
func echo(t testing.TB, addr string) *net.UDPAddr {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() {
		pc.SetReadDeadline(time.Now())
		pc.Close()
		<-done
	})
	return pc.LocalAddr().(*net.UDPAddr)
}
