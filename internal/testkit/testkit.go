// Package testkit runs callbox as a person or an operator would and looks at what it does: the real binary, a real
// redis-server, a real Chromium, network namespaces, a proxy that drops. Everything it starts ends with the test that
// asked for it. It is for tests only and holds no assertion about callbox itself; those are in internal/e2e.
package testkit

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Tool returns the path of a program that is not part of callbox. Where it is missing the test is skipped, except with CI
// set: there it fails, because a test that did not run has shown nothing.
func Tool(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	Lack(t, name+" is not on this machine (make tools installs it)")
	return ""
}

// Lack skips the test, or with CI set fails it, because of something the machine does not have.
func Lack(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Eventually calls check every few milliseconds until it returns nil, and fails the test with the last error when it has
// not within the given time.
func Eventually(t testing.TB, within time.Duration, what string, check func() error) {
	t.Helper()
	if err := Poll(within, check); err != nil {
		t.Fatalf("%s: not within %v: %v", what, within, err)
	}
}

// Poll calls check until it returns nil or the time is over, and returns its last error.
func Poll(within time.Duration, check func() error) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	pause := 5 * time.Millisecond
	for {
		err := check()
		if err == nil {
			return nil
		}
		next := time.NewTimer(pause)
		select {
		case <-deadline.C:
			next.Stop()
			return err
		case <-next.C:
		}
		if pause < 100*time.Millisecond {
			pause += pause / 2
		}
	}
}

// Port returns a port number that is free for TCP and UDP on host at this moment.
func Port(t testing.TB, host string) int {
	t.Helper()
	for range 50 {
		stream, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatalf("free port on %s: %v", host, err)
		}
		port := stream.Addr().(*net.TCPAddr).Port
		packet, err := net.ListenPacket("udp", net.JoinHostPort(host, fmt.Sprint(port)))
		_ = stream.Close()
		if err != nil {
			continue
		}
		_ = packet.Close()
		return port
	}
	t.Fatalf("no port free for both TCP and UDP on %s", host)
	return 0
}

// Artifact returns a path for a file that helps to understand a failure. The files outlive the test: they are in the folder
// that TEST_ARTIFACTS names, or in one under the system's temporary folder.
func Artifact(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("TEST_ARTIFACTS")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "callbox-test-artifacts")
	}
	dir = filepath.Join(dir, strings.NewReplacer("/", "_", " ", "_", ":", "_").Replace(t.Name()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("artifacts folder: %v", err)
	}
	return filepath.Join(dir, name)
}

// Root returns the folder of the module, found from the folder the test runs in.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = up
	}
}
