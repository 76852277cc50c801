package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// RedisServer is a real redis-server on a port of its own that keeps nothing on disk.
type RedisServer struct {
	Addr string

	t       testing.TB
	dir     string
	process *Process
}

// Redis starts a redis-server and waits until it answers.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	r := &RedisServer{t: t, dir: t.TempDir(), Addr: fmt.Sprintf("127.0.0.1:%d", Port(t, "127.0.0.1"))}
	r.Start()
	return r
}

// URL returns the address in the form --bus takes.
func (r *RedisServer) URL() string { return "redis://" + r.Addr }

// Start runs the server again on the same port, empty.
func (r *RedisServer) Start() {
	r.t.Helper()
	_, port, _ := net.SplitHostPort(r.Addr)
	r.process = Start(r.t, "redis-server", exec.Command(Tool(r.t, "redis-server"),
		"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", r.dir))
	Eventually(r.t, 15*time.Second, "redis-server answers", func() error {
		_, err := r.Do("PING")
		return err
	})
}

// Pid returns the server's process id.
func (r *RedisServer) Pid() int { return r.process.Pid() }

// Kill ends the server without a word.
func (r *RedisServer) Kill() { r.process.Kill() }

// Pause stops the server in its tracks: connections stay open and nothing answers.
func (r *RedisServer) Pause() { r.t.Helper(); r.process.Pause() }

// Resume lets a paused server go on.
func (r *RedisServer) Resume() { r.t.Helper(); r.process.Resume() }

// Flush removes every key.
func (r *RedisServer) Flush() {
	r.t.Helper()
	if _, err := r.Do("FLUSHALL"); err != nil {
		r.t.Fatalf("redis-server: %v", err)
	}
}

// Do sends one command and returns the first line of the reply, without its type mark.
func (r *RedisServer) Do(arguments ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", r.Addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(arguments))
	for _, argument := range arguments {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(argument), argument)
	}
	if _, err := conn.Write([]byte(request.String())); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "-") {
		return "", errors.New(line[1:])
	}
	return strings.TrimLeft(line, "+:$*"), nil
}
