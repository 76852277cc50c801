package redis

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/bus"
	"callbox/bus/bustest"
)

const nodeProcessURL = "CALLBOX_TEST_NODE_URL"

// nodeProcess is a node in a process of its own, so that it can be killed and
// stopped. It writes what its handler is told, a line each, and ends when its
// input does.
func nodeProcess() {
	b, err := Open(context.Background(), Config{URL: os.Getenv(nodeProcessURL), Name: "child"})
	if err == nil {
		if err = b.Start(speaker{}); err == nil {
			fmt.Println("self", b.Self())
			_, err = io.Copy(io.Discard, os.Stdin)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	b.Close()
}

type speaker struct{}

func (speaker) Message(_ bus.NodeID, data []byte)       { fmt.Println("got", string(data)) }
func (speaker) Lost(_ bus.NodeID, data []byte, _ error) { fmt.Println("lost", string(data)) }
func (speaker) Changed(bucket, key string)              { fmt.Println("changed", bucket, key) }
func (speaker) NodesChanged(n []bus.NodeInfo)           { fmt.Println("nodes", len(n)) }
func (speaker) Link(up bool)                            { fmt.Println("link", up) }

// child is that process, seen from the test.
type child struct {
	self bus.NodeID
	cmd  *exec.Cmd
	in   io.Closer

	mu    sync.Mutex
	lines []string
	ended chan struct{}
}

func startChild(t *testing.T, url string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), nodeProcessURL+"="+url)
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in = in
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.mu.Lock()
			c.lines = append(c.lines, s.Text())
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		c.in.Close()
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.ended
		_ = c.cmd.Wait() // killed: no status to look at
	})
	bustest.Eventually(t, 20*time.Second, "the child to start", func() bool {
		for _, l := range c.said("self ") {
			c.self = bus.NodeID(l)
		}
		return c.self != ""
	})
	return c
}

// said returns the lines with that beginning, without it.
func (c *child) said(prefix string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rest []string
	for _, l := range c.lines {
		if r, ok := strings.CutPrefix(l, prefix); ok {
			rest = append(rest, r)
		}
	}
	return rest
}

// ledger is a node's handler that books every message's fate.
type ledger struct {
	peer *ledger // whose lost messages must not arrive here any more

	mu    sync.Mutex
	got   []string
	lost  []string
	late  []string // delivered after they had been handed back
	links []bool
}

func (l *ledger) Message(_ bus.NodeID, data []byte) {
	late := l.peer != nil && slices.Contains(l.peer.returned(), string(data))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, string(data))
	if late {
		l.late = append(l.late, string(data))
	}
}

func (l *ledger) Lost(_ bus.NodeID, data []byte, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = append(l.lost, string(data))
}

func (l *ledger) Changed(string, string)      {}
func (l *ledger) NodesChanged([]bus.NodeInfo) {}

func (l *ledger) Link(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links = append(l.links, up)
}

func (l *ledger) gotten() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.got...)
}

func (l *ledger) returned() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lost...)
}

func (l *ledger) linkUpAgain() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.links) >= 2 && l.links[len(l.links)-1]
}

func openLedger(t *testing.T, url, name string) (*Bus, *ledger) {
	t.Helper()
	b, err := Open(context.Background(), Config{URL: url, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	l := &ledger{}
	if err := b.Start(l); err != nil {
		t.Fatal(err)
	}
	return b, l
}

// stream sends numbered messages, one a millisecond, until stopped. accepted
// are the numbers that Send took.
type stream struct {
	stop     chan struct{}
	wg       sync.WaitGroup
	mu       sync.Mutex
	accepted []string
}

func startStream(b *Bus, to bus.NodeID) *stream {
	s := &stream{stop: make(chan struct{})}
	s.wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			m := fmt.Sprintf("m%06d", i)
			if b.Send(to, []byte(m)) == nil {
				s.mu.Lock()
				s.accepted = append(s.accepted, m)
				s.mu.Unlock()
			}
		}
	})
	return s
}

func (s *stream) end() []string {
	close(s.stop)
	s.wg.Wait()
	return s.accepted
}

func (s *stream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted)
}

// fates waits until every accepted message was delivered or has come back, and
// checks that the delivered ones came in order, none twice. It returns those
// that were both: delivered, but the receipt did not come before the lease ended.
func fates(t *testing.T, accepted []string, got, lost func() []string) (both []string) {
	t.Helper()
	known := func() map[string]int {
		m := map[string]int{}
		for _, s := range got() {
			m[s]++
		}
		for _, s := range lost() {
			m[s]++
		}
		return m
	}
	missing := ""
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		m := known()
		missing = ""
		for _, s := range accepted {
			if m[s] == 0 {
				missing = s
				break
			}
		}
		if missing == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s was neither delivered nor handed back (%d accepted, %d delivered, %d lost)", missing, len(accepted), len(got()), len(lost()))
		}
		<-tick.C
	}
	last := ""
	for _, s := range got() {
		if s <= last {
			t.Fatalf("%s was delivered after %s", s, last)
		}
		last = s
	}
	for s, n := range known() {
		if n > 2 {
			t.Fatalf("%s has %d fates", s, n)
		}
		if n == 2 {
			both = append(both, s)
		}
	}
	return both
}
