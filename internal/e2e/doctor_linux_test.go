package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// finding is one check of callbox doctor --json.
type finding struct{ Name, Saw, Verdict, Remedy string }

// examine runs callbox doctor on a host, and returns its checks by name.
func examine(t *testing.T, ns *testkit.Namespace, arguments ...string) map[string]finding {
	t.Helper()
	return examined(t, ns.Command(testkit.Binary(t), append([]string{"doctor", "--json"}, arguments...)...))
}

func examined(t *testing.T, cmd *exec.Cmd) map[string]finding {
	t.Helper()
	var diagnostics strings.Builder
	cmd.Stderr = &diagnostics
	out, _ := cmd.Output() // its status is one of the verdicts'
	var report struct{ Checks []finding }
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v: %s%s", err, out, diagnostics.String())
	}
	found := map[string]finding{}
	for _, f := range report.Checks {
		found[f.Name] = f
	}
	failed := false
	for _, f := range report.Checks {
		failed = failed || f.Verdict == "fail"
	}
	if code := cmd.ProcessState.ExitCode(); failed != (code == 1) || !failed && code != 0 {
		t.Errorf("status %d with %s", code, out)
	}
	return found
}

func wantFinding(t *testing.T, found map[string]finding, name, verdict, saw, remedy string) {
	t.Helper()
	f := found[name]
	if f.Verdict != verdict || !strings.Contains(f.Saw, saw) || !strings.Contains(f.Remedy, remedy) {
		t.Errorf("%s: got %+v, want %s with %q and %q", name, f, verdict, saw, remedy)
	}
}

// noUDP is the rule of a router that passes none.
const noUDP = `
table ip noudp {
	chain through { type filter hook forward priority filter; meta l4proto udp drop; }
}
`

// TestDoctorAtHome: behind a symmetric router that forwards nothing and speaks no UPnP, and then without any UDP.
func TestDoctorAtHome(t *testing.T) {
	n := newInternet(t)
	host, public := n.home("alice")
	n.server.Run("ip", "address", "add", "198.51.100.3/32", "dev", "lo")
	n.core.Run("ip", "route", "add", "198.51.100.3/32", "via", serverAddress)
	n.serve(testkit.Options{Args: []string{"--turn-listen", "udp://198.51.100.3:443"}})
	home := strings.TrimSpace(strings.Fields(host.Run("ip", "-4", "-o", "address", "show", "scope", "global"))[3])
	home, _, _ = strings.Cut(home, "/")
	arguments := []string{"--data", filepath.Join(t.TempDir(), "data"), "--listen", "0.0.0.0:8080",
		"--stun-server", serverAddress + ":443", "--stun-server", "198.51.100.3:443"}

	found := examine(t, host, arguments...)
	wantFinding(t, found, "public address", "ok", public, "")
	wantFinding(t, found, "NAT kind", "warn", "symmetric", "forward the server's port")
	wantFinding(t, found, "router mapping", "warn", "no router here", "forward port 8080")
	wantFinding(t, found, "hairpin", "warn", public+":8080 does not answer from inside over UDP and TCP", "--phone")
	wantFinding(t, found, "STUN", "ok", home, "")
	for name, transport := range map[string]string{"UDP": "UDP", "TCP": "TCP", "TLS": "TCP"} {
		wantFinding(t, found, "relay over "+name, "warn", "works at "+home+":8080", fmt.Sprintf("forward %s port 8080", transport))
	}

	n.core.Nft(noUDP)
	found = examine(t, host, append(arguments, "--map-port", "off")...)
	wantFinding(t, found, "public address", "fail", "not found", "--public-ip")
	wantFinding(t, found, "NAT kind", "fail", "no UDP comes back", "let the firewall or router pass UDP")
	wantFinding(t, found, "relay over UDP", "ok", "no public address to try", "")
}

// house is a host at an address behind n.core, which forwards port 8080 to it and leads its own address back in.
func (n *internet) house(address, gateway string) *testkit.Namespace {
	n.t.Helper()
	host := testkit.NewNamespace(n.t, "house")
	n.core.Link(gateway+"/24", host, address+"/24")
	host.Route("default", gateway)
	n.core.Nft(fmt.Sprintf(`
table ip house {
	chain in { type nat hook prerouting priority dstnat; ip daddr 198.51.100.1 tcp dport 8080 dnat to %[1]s; ip daddr 198.51.100.1 udp dport 8080 dnat to %[1]s; }
	chain out { type nat hook postrouting priority srcnat; ip saddr %[1]s snat to 198.51.100.1; }
}
`, address))
	return host
}

// TestDoctorBehindAForwardedPort: all is well, and the relay is tried on the public address itself. Then the same house has an
// address of those that providers share.
func TestDoctorBehindAForwardedPort(t *testing.T) {
	for _, tc := range []struct{ address, gateway, cgnat string }{
		{"10.7.0.2", "10.7.0.1", "skipped"}, {"100.64.7.2", "100.64.7.1", "fail"},
	} {
		t.Run(tc.cgnat, func(t *testing.T) {
			n := newInternet(t)
			n.server.Run("ip", "address", "add", "198.51.100.3/32", "dev", "lo")
			n.core.Run("ip", "route", "add", "198.51.100.3/32", "via", serverAddress)
			n.serve(testkit.Options{Args: []string{"--turn-listen", "udp://198.51.100.3:443"}})
			found := examine(t, n.house(tc.address, tc.gateway), "--data", filepath.Join(t.TempDir(), "data"), "--listen", "0.0.0.0:8080",
				"--stun-server", serverAddress+":443", "--stun-server", "198.51.100.3:443", "--map-port", "off")
			wantFinding(t, found, "public address", "ok", "198.51.100.1", "")
			wantFinding(t, found, "NAT kind", "ok", "endpoint-independent", "")
			wantFinding(t, found, "router mapping", "skipped", "--map-port off", "")
			wantFinding(t, found, "hairpin", "ok", "198.51.100.1:8080 answers from inside", "")
			for _, transport := range []string{"UDP", "TCP", "TLS"} {
				wantFinding(t, found, "relay over "+transport, "ok", "two allocations at 198.51.100.1:8080 reached each other", "")
			}
			wantFinding(t, found, "CGNAT", tc.cgnat, "", "")
			if tc.cgnat == "fail" {
				wantFinding(t, found, "CGNAT", "fail", tc.address, "ask the provider")
			}
		})
	}
}

// TestDoctorOfAnotherUser: without the right to low ports, and with a data directory of root's.
func TestDoctorOfAnotherUser(t *testing.T) {
	ns := testkit.NewNamespace(t, "alone")
	dir, err := os.MkdirTemp("", "callbox-doctor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary, data := filepath.Join(dir, "callbox"), filepath.Join(dir, "data")
	if out, err := exec.Command("cp", testkit.PlainBinary(t), binary).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	nobody := func(data string) map[string]finding {
		cmd := ns.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
			binary, "doctor", "--json", "--listen", "0.0.0.0:443", "--stun-server", "none", "--map-port", "off", "--data", data)
		cmd.Dir = "/"
		return examined(t, cmd)
	}
	found := nobody(data)
	wantFinding(t, found, "data directory", "fail", "belongs to user number 0, and this is user number 65534", "chown")
	found = nobody(filepath.Join(dir, "missing", "data"))
	wantFinding(t, found, "data directory", "fail", "cannot be made: permission denied", "install -d")
	wantFinding(t, found, "port permission", "fail", "port 443 is below 1024", "setcap cap_net_bind_service=+ep "+binary)
	wantFinding(t, found, "listening", "fail", "not for this user", "port permission")
	wantFinding(t, found, "server", "fail", "setcap", "")
}

// TestPhoneWithoutUDP: a phone outside whose network passes no UDP. The terminal says what gets through and what does not.
func TestPhoneWithoutUDP(t *testing.T) {
	n := newInternet(t)
	s := n.serve(testkit.Options{Args: []string{"--public-ip", serverAddress, "--turns", "on"}})
	host, public := n.home("phone")
	n.core.Nft(noUDP)
	p := doctorPhone(t, s)
	page := testkit.NewBrowser(t, testkit.InNamespace(host), testkit.IgnoreCertificates()).Page(t, "phone")
	page.Open(p.link)
	page.Until(2*time.Minute, "all ways were tried", `document.getElementById("outcome").textContent.startsWith("Done.")`)
	if code := p.Wait(30 * time.Second); code != 1 {
		t.Errorf("status %d", code)
	}
	if got, want := p.verdicts(), "HTTPS: ok, WebSocket: ok, STUN: fail, relay over UDP: fail, relay over TCP: ok, relay over TLS: ok"; got != want {
		t.Errorf("%s\nsays %s, want %s", p.Output(), got, want)
	}
	if said := strings.Join(strings.Fields(p.Output()), " "); !strings.Contains(said, "opened from "+public) || !strings.Contains(said, "forward UDP port 443") {
		t.Error(said)
	}
}
