package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/internal/control"
	"callbox/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// result is what a command left behind.
type result struct {
	status         int
	stdout, stderr string
}

// buffer is a bytes.Buffer that a running command may write to while a test reads.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// runWith runs a command in surroundings that a test has changed.
func runWith(t *testing.T, env Env, args ...string) result {
	t.Helper()
	var out, errs buffer
	env.Stdout, env.Stderr = &out, &errs
	if env.Stdin == nil {
		env.Stdin = strings.NewReader("")
	}
	status := Run(t.Context(), args, env)
	return result{status, out.String(), errs.String()}
}

// callbox runs a command with an input.
func callbox(t *testing.T, input string, args ...string) result {
	t.Helper()
	return runWith(t, Env{Stdin: strings.NewReader(input)}, args...)
}

// ok runs a command that must work, and returns what it printed.
func ok(t *testing.T, input string, args ...string) string {
	t.Helper()
	r := callbox(t, input, args...)
	if r.status != exitOK || r.stderr != "" {
		t.Fatalf("%q: status %d, %s", args, r.status, r.stderr)
	}
	return r.stdout
}

// fails runs a command that must fail with a status and a text.
func fails(t *testing.T, status int, text string, args ...string) {
	t.Helper()
	r := callbox(t, "a good password\n", args...)
	if r.status != status || !strings.Contains(r.stderr, text) {
		t.Errorf("%q: status %d, want %d; %q lacks %q", args, r.status, status, r.stderr, text)
	}
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// dataDir is a path short enough for a socket in it.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// startServer runs "serve" on a data directory until the test ends or stop is
// called, which returns what it left behind.
func startServer(t *testing.T, dir string, args ...string) (stop func() result) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	ended := make(chan int, 1)
	go func() {
		ended <- Run(ctx, append([]string{"--data", dir, "--listen", "127.0.0.1:0"}, args...), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs})
	}()
	stop = sync.OnceValue(func() result {
		cancel()
		return result{<-ended, out.String(), errs.String()}
	})
	t.Cleanup(func() { stop() })
	waitFor(t, func() bool {
		_, err := control.NewClient(dir).Health(ctx)
		if err != nil && !errors.Is(err, control.ErrNoServer) {
			t.Fatal(err)
		}
		select {
		case status := <-ended:
			ended <- status
			t.Fatalf("the server ended with %d: %s", status, errs.String())
		default:
		}
		return err == nil
	})
	return stop
}

// waitFor polls until a condition holds.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("condition does not come true")
		}
	}
}
