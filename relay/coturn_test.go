package relay

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCoturnClient runs a client that others wrote against the relay: every packet must come back.
func TestCoturnClient(t *testing.T) {
	client, err := exec.LookPath("turnutils_uclient")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("turnutils_uclient is missing: install the package coturn")
		}
		t.Skip("turnutils_uclient is missing: install the package coturn")
	}
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
				args := append(strings.Fields(run.args), "-u", "1:alice", "-w", password("1:alice"), "-e", "127.0.0.1",
					"-r", strconv.Itoa(peer.Port), "-c", "-n", "50", "-p", strconv.Itoa(port), "127.0.0.1")
				// This client draws its channels from all of 0x4000-0x7FFF (RFC 5766); RFC 8656 section 12 leaves it
				// the lower quarter. Where it needs channels, run it until it has drawn some of those.
				for range 1000 {
					out, err := exec.CommandContext(t.Context(), client, args...).CombinedOutput()
					if strings.Contains(string(out), "channel bind: error 400") {
						continue
					}
					if err != nil || !strings.Contains(string(out), "Total lost packets 0") {
						t.Fatalf("%v\n%s\n%+v", err, out, s.Stats())
					}
					return
				}
				t.Fatal("never drew channels below 0x5000")
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
