package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func TestProxyHoldsBackWhileCutAndLosesNothing(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	proxy := NewProxy(t, server.Addr().String())
	client, err := net.Dial("tcp", proxy.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	behind, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = behind.Close() }()
	lines := bufio.NewReader(behind)

	proxy.Cut()
	fmt.Fprintln(client, "held back")
	if err := behind.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if line, err := lines.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a proxy that is cut passed %q (%v)", line, err)
	}
	proxy.Heal()
	if err := behind.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := lines.ReadString('\n'); line != "held back\n" {
		t.Fatalf("after healing came %q (%v)", line, err)
	}
	proxy.Reset()
	if _, err := lines.ReadString('\n'); err == nil {
		t.Fatal("the connection is still open after a reset")
	}
}

func TestRedisLosesItsKeysAndComesBackOnItsPort(t *testing.T) {
	redis := Redis(t)
	if _, err := redis.Do("SET", "k", "v"); err != nil {
		t.Fatal(err)
	}
	redis.Kill()
	if _, err := redis.Do("PING"); err == nil {
		t.Fatal("a killed redis-server answers")
	}
	redis.Start()
	if got, err := redis.Do("EXISTS", "k"); err != nil || got != "0" {
		t.Fatalf("after a restart: %q, %v", got, err)
	}
}

func TestProcessTellsOutputAndStatus(t *testing.T) {
	p := Start(t, "shell", exec.Command(Tool(t, "sh"), "-c", "echo ready 42; exit 3"))
	if got := p.Says(5*time.Second, `ready (\d+)`); got[1] != "42" {
		t.Fatalf("got %q", got)
	}
	if code := p.Wait(5 * time.Second); code != 3 {
		t.Fatalf("status %d", code)
	}
}
