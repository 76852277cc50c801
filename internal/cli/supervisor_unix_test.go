//go:build unix

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"callbox/internal/control"
	"callbox/internal/testkit"
)

// notified collects what a server tells its supervisor.
type notified struct {
	path  string
	lines buffer
}

func supervise(t *testing.T) *notified {
	t.Helper()
	n := &notified{path: filepath.Join(dataDir(t), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			k, err := conn.Read(b)
			if err != nil {
				return
			}
			_, _ = n.lines.Write(append(b[:k:k], '\n'))
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return n
}

// states are what was told so far, without the signs of life.
func (n *notified) states() string {
	return strings.ReplaceAll(n.lines.String(), "WATCHDOG=1\n", "")
}

func TestHangupReloadsAndTheLogAnswers(t *testing.T) {
	dir, n := dataDir(t), supervise(t)
	file := filepath.Join(dir, "callbox.yaml")
	writeFile(t, file, "turn-host: one.example\n")
	cmd := exec.Command(testkit.Binary(t), "--listen", "127.0.0.1:0", "--data", dir, "--config", file, "--log-format", "json", "--metrics-listen", "off")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+n.path, fmt.Sprintf("WATCHDOG_USEC=%d", time.Second.Microseconds()))
	p := testkit.Start(t, "callbox", cmd)
	hangup := func() {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return n.states() == "READY=1\n" && strings.Count(n.lines.String(), "WATCHDOG=1") > 1 })
	writeFile(t, file, "turn-host: two.example\nrealm: other\n")
	hangup()
	p.Says(20*time.Second, `"configuration read again","changed":"turn-host","restart":"realm"`)
	writeFile(t, file, "turn-host: three.example\npublic-ip: home\n")
	hangup()
	p.Says(20*time.Second, `configuration not read again.*nothing has changed.*public-ip`)
	waitFor(t, func() bool { return n.states() == "READY=1\n"+strings.Repeat("RELOADING=1\nREADY=1\n", 2) })
	p.Terminate()
	if status := p.Wait(30 * time.Second); status != 0 {
		t.Errorf("status %d", status)
	}
	waitFor(t, func() bool { return strings.HasSuffix(n.states(), "READY=1\nSTOPPING=1\n") })
}

func TestHangupOfATerminalEndsTheServer(t *testing.T) {
	hangup := make(chan os.Signal, 1)
	var out, errs buffer
	ended := make(chan int, 1)
	dir := dataDir(t)
	go func() {
		ended <- Run(t.Context(), []string{"--data", dir, "--listen", "127.0.0.1:0"}, Env{
			Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Terminal: true, Hangup: hangup,
		})
	}()
	waitFor(t, func() bool { return strings.Contains(out.String(), "is running") })
	hangup <- syscall.SIGHUP
	select {
	case status := <-ended:
		if status != exitOK {
			t.Errorf("status %d: %s", status, errs.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it lives on")
	}
}

// handOver starts a server with sockets that this process has bound.
func handOver(t *testing.T, dir string, files ...*os.File) *testkit.Process {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, testkit.Binary(t),
		"--listen", "192.0.2.1:9", "--data", dir, "--log-format", "json", "--metrics-listen", "off")
	cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(files)))
	cmd.ExtraFiles = files
	return testkit.Start(t, "callbox", cmd)
}

func file(t *testing.T, socket interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestSocketsThatWereHandedOverAreTheOnePort(t *testing.T) {
	for name, which := range map[string]struct{ tcp, udp bool }{"both": {true, true}, "TCP alone": {true, false}, "UDP alone": {false, true}} {
		t.Run(name, func(t *testing.T) {
			tcp, udp := bindBoth(t)
			var files []*os.File
			if which.udp { // systemd gives them in the order of the unit's file: here the other one
				files = append(files, file(t, udp))
			}
			if which.tcp {
				files = append(files, file(t, tcp))
			}
			addr := tcp.Addr().String()
			_, _ = tcp.Close(), udp.Close() // what was handed over lives on in the server
			dir := dataDir(t)
			p := handOver(t, dir, files...)
			var health control.Health
			waitFor(t, func() (ok bool) {
				var err error
				health, err = control.NewClient(dir).Health(t.Context())
				return err == nil
			})
			if health.Addr != addr {
				t.Errorf("listens on %s, not on %s", health.Addr, addr)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
			resp, err := client.Get("http://" + addr + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("healthz: %s", resp.Status)
			}
			if !bindingAnswered(t, addr) {
				t.Error("no answer to STUN")
			}
			p.Terminate()
			if status := p.Wait(30 * time.Second); status != 0 {
				t.Errorf("status %d", status)
			}
		})
	}
}

func TestSocketsThatMakeNoPortAreRefused(t *testing.T) {
	tcp, udp := bindBoth(t)
	other, otherUDP := bindBoth(t)
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dataDir(t), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []io.Closer{tcp, udp, other, otherUDP, unix} {
		defer l.Close()
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, files := range map[string][]*os.File{
		"two of TCP": {file(t, tcp), file(t, other)}, "two of UDP": {file(t, udp), file(t, otherUDP)},
		"other ports": {file(t, tcp), file(t, otherUDP)}, "a Unix socket": {file(t, unix)}, "no socket": {null},
	} {
		p := handOver(t, dataDir(t), files...)
		if status := p.Wait(30 * time.Second); status != exitFault || !strings.Contains(p.Output(), "sockets handed over") {
			t.Errorf("%s: status %d, %s", name, status, p.Output())
		}
	}
}

// bindBoth binds TCP and UDP on one port.
func bindBoth(t *testing.T) (*net.TCPListener, *net.UDPConn) {
	t.Helper()
	for range 50 {
		tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Addr().(*net.TCPAddr).Port})
		if err == nil {
			return tcp, udp
		}
		_ = tcp.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

// bindingAnswered sends a STUN Binding request (RFC 8489, section 5) until it is answered.
func bindingAnswered(t *testing.T, addr string) bool {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, "twelve bytes"...)
	for range 40 {
		if _, err := conn.Write(request); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		answer := make([]byte, 1500)
		n, err := conn.Read(answer)
		if err == nil && n >= 20 && answer[0] == 1 && answer[1] == 1 && bytes.Equal(answer[8:20], request[8:]) {
			return true
		}
	}
	return false
}
