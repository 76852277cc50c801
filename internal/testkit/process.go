package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Process is a program that runs beside the test. It is killed when the test ends, and its output is printed when the test
// has failed.
type Process struct {
	Name string

	t      testing.TB
	cmd    *exec.Cmd
	output *buffer
	done   chan struct{} // closed when the process has ended and err is set
	err    error
}

// Start runs the command; both its outputs go to one buffer unless the caller has set them.
func Start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Name: name, t: t, cmd: cmd, output: &buffer{}, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.output
	}
	// A grandchild that keeps the pipe open must not hold the test.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, tail(p.Output(), 12000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[len(s)-n:]
	return "…" + s[strings.IndexByte(s, '\n')+1:]
}

// Output returns everything the process has printed so far.
func (p *Process) Output() string { return p.output.String() }

// Pid returns the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ended tells whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Wait waits for the end and returns the exit status; -1 is an end by signal. The test fails when it takes longer than within.
func (p *Process) Wait(within time.Duration) int {
	p.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.t.Fatalf("%s has not ended within %v", p.Name, within)
	}
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return 0
	case errors.As(p.err, &exit):
		return exit.ExitCode()
	}
	p.t.Fatalf("%s: %v", p.Name, p.err)
	return -1
}

// Terminate asks the process to stop, as an init system does.
func (p *Process) Terminate() {
	p.t.Helper()
	if err := terminate(p.cmd.Process); err != nil && !p.Ended() {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
}

// Kill ends the process without a word and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Pause stops the process in its tracks; its sockets stay open and unread.
func (p *Process) Pause() {
	p.t.Helper()
	if err := pause(p.cmd.Process); err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
}

// Resume lets a paused process go on.
func (p *Process) Resume() {
	p.t.Helper()
	if err := proceed(p.cmd.Process); err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
}

// Says waits until the output matches and returns the submatches.
func (p *Process) Says(within time.Duration, pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	Eventually(p.t, within, p.Name+" says "+pattern, func() error {
		if found = re.FindStringSubmatch(p.Output()); found != nil {
			return nil
		}
		if p.Ended() {
			return fmt.Errorf("it has ended: %v\n%s", p.err, tail(p.Output(), 4000))
		}
		return errors.New("not in its output")
	})
	return found
}

// buffer collects output that is read while it is written.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer // guarded by mu
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}
