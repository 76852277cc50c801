package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a host of its own on this machine: its own interfaces, routes and firewall, and nothing else. It is gone after the test.
type Namespace struct {
	Name string

	t testing.TB
}

// count makes interface and namespace names unique in one process.
var count atomic.Int64

// NewNamespace makes a host. Only root may; elsewhere the test is skipped, and fails with CI set.
func NewNamespace(t testing.TB, role string) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		Lack(t, "network namespaces need root")
	}
	Tool(t, "ip")
	Tool(t, "nft")
	ns := &Namespace{t: t, Name: fmt.Sprintf("callbox-%d-%d-%s", os.Getpid(), count.Add(1), role)}
	command(t, "ip", "netns", "add", ns.Name)
	t.Cleanup(func() { _ = exec.Command(Tool(t, "ip"), "netns", "del", ns.Name).Run() })
	ns.Run("ip", "link", "set", "lo", "up")
	return ns
}

func command(t testing.TB, name string, arguments ...string) string {
	t.Helper()
	out, err := exec.Command(Tool(t, name), arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(arguments, " "), err, out)
	}
	return string(out)
}

// Command is exec.Command inside the namespace. The process id is the program's own.
func (ns *Namespace) Command(name string, arguments ...string) *exec.Cmd {
	ns.t.Helper()
	if !strings.Contains(name, "/") {
		name = Tool(ns.t, name)
	}
	return exec.Command(Tool(ns.t, "ip"), append([]string{"netns", "exec", ns.Name, name}, arguments...)...)
}

// Run runs a program inside the namespace to its end; the test fails when that is not a success.
func (ns *Namespace) Run(name string, arguments ...string) string {
	ns.t.Helper()
	out, err := ns.Command(name, arguments...).CombinedOutput()
	if err != nil {
		ns.t.Fatalf("%s: %s %s: %v: %s", ns.Name, name, strings.Join(arguments, " "), err, out)
	}
	return string(out)
}

// Nft loads an nftables script.
func (ns *Namespace) Nft(script string) {
	ns.t.Helper()
	cmd := ns.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		ns.t.Fatalf("%s: nft: %v: %s\n%s", ns.Name, err, out, script)
	}
}

// Forward makes the namespace a router.
func (ns *Namespace) Forward() {
	ns.t.Helper()
	ns.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
}

// Link joins two namespaces by a cable; the addresses are CIDRs. It returns the names of the two interfaces.
func (ns *Namespace) Link(address string, other *Namespace, otherAddress string) (string, string) {
	ns.t.Helper()
	n := count.Add(1)
	near, far := fmt.Sprintf("cb%d-%d", os.Getpid()%100000, n), fmt.Sprintf("cx%d-%d", os.Getpid()%100000, n)
	command(ns.t, "ip", "link", "add", near, "netns", ns.Name, "type", "veth", "peer", "name", far, "netns", other.Name)
	for _, end := range []struct {
		ns          *Namespace
		name, cidrs string
	}{{ns, near, address}, {other, far, otherAddress}} {
		// An address of IPv6 that comes a second later is a change of the network, on which browsers break off what they load.
		end.ns.Run("ip", "link", "set", end.name, "addrgenmode", "none")
		end.ns.Run("ip", "address", "add", end.cidrs, "dev", end.name)
		end.ns.Run("ip", "link", "set", end.name, "up")
	}
	for _, end := range []struct {
		ns   *Namespace
		name string
	}{{ns, near}, {other, far}} {
		Eventually(ns.t, plugged, "the cable is plugged in", func() error {
			if state := strings.TrimSpace(end.ns.Run("cat", "/sys/class/net/"+end.name+"/operstate")); state != "up" {
				return fmt.Errorf("%s of %s is %s", end.name, end.ns.Name, state)
			}
			return nil
		})
	}
	return near, far
}

// plugged is how long the kernel may take to notice that both ends of a cable are up.
const plugged = 20 * time.Second

// endWithParent kills the process when the test process dies, so that none is left behind.
func endWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// Route adds a route; destination may be "default".
func (ns *Namespace) Route(destination, via string) {
	ns.t.Helper()
	ns.Run("ip", "route", "add", destination, "via", via)
}

// Do calls f on a thread inside the namespace. Sockets that f opens itself, not through another goroutine, belong to it for ever.
func (ns *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, because it must not serve other goroutines.
		runtime.LockOSThread()
		result <- func() error {
			file, err := os.Open("/var/run/netns/" + ns.Name)
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter namespace: %w", err)
			}
			return f()
		}()
	}()
	return <-result
}

// Dial connects from inside the namespace to an IP address and port.
func (ns *Namespace) Dial(_ context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		return nil, errors.New("a namespace has no resolver: dial an IP address")
	}
	var conn net.Conn
	err = ns.Do(func() error {
		var err error
		conn, err = net.Dial(network, address)
		return err
	})
	return conn, err
}

// ListenPacket opens a UDP socket inside the namespace.
func (ns *Namespace) ListenPacket(network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := ns.Do(func() error {
		var err error
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}
