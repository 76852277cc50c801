package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/coder/websocket"
)

// ready returns what a node says of itself; it must be ready.
func ready(t *testing.T, s *testkit.Server) string {
	t.Helper()
	response, err := s.Client().Get(s.URL("/readyz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s is not ready: %s %s", s.Name, response.Status, text)
	}
	return string(text)
}

func TestKilledNode(t *testing.T) {
	c := newCluster(t)
	stays := c.guest("stays", c.nodes[0])
	moves := c.guest("moves", c.nodes[1], c.nodes[2])
	meets(t, stays, moves)
	arrives(t, 10*time.Second, stays, moves)
	gone := moves.id()

	begun := time.Now()
	c.nodes[1].Kill()
	stays.signal(gone, "anybody there?")
	stays.await(5*time.Second, "word that nobody is there", func(m message) bool {
		return m.Type == "undeliverable" && m.To == gone && m.Reason == "gone"
	})
	moves.until(10*time.Second, "is back elsewhere", func() bool { return len(moves.welcomes) == 2 })
	moves.mu.Lock()
	if moves.welcomes[1].Resumed {
		t.Error("a session of a dead node was resumed")
	}
	moves.mu.Unlock()
	moves.join("hall")
	arrives(t, 10*time.Second, stays, moves)
	arrives(t, 10*time.Second, moves, stays)
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("back in the room after %v, want at most 10 s", took)
	}
	// What the dead node left behind stops counting.
	look := c.guest("look", c.nodes[2])
	testkit.Eventually(t, 8*time.Second, "the room holds the living", func() error {
		m := look.join("hall")
		var seen []string
		for _, p := range m.Peers {
			seen = append(seen, p.Peer)
		}
		want := []string{stays.id(), moves.id(), look.id()}
		slices.Sort(seen)
		slices.Sort(want)
		if !slices.Equal(seen, want) {
			return fmt.Errorf("in the room: %v, want %v", seen, want)
		}
		return nil
	})
	stays.clean()
	moves.clean()
}

func TestHungNode(t *testing.T) {
	c := newCluster(t)
	stays := c.guest("stays", c.nodes[0])
	moves := c.guest("moves", c.nodes[1], c.nodes[2])
	meets(t, stays, moves)
	old := moves.id()
	begun := time.Now()
	c.nodes[1].Pause()
	// The client notices and goes elsewhere.
	moves.drop()
	moves.until(15*time.Second, "is back elsewhere", func() bool { return len(moves.welcomes) == 2 })
	moves.join("hall")
	arrives(t, 15*time.Second, stays, moves)
	if moves.id() != old {
		stays.signal(old, "to the one who was there")
		stays.await(15*time.Second, "word that nobody is there", func(m message) bool {
			return m.Type == "undeliverable" && m.To == old
		})
	}
	testkit.Eventually(t, 30*time.Second, "20 seconds are over", func() error {
		if time.Since(begun) < 20*time.Second {
			return fmt.Errorf("only %v", time.Since(begun))
		}
		return nil
	})
	c.nodes[1].Resume()
	// It wakes, finds that it was counted gone, and is a node again without a restart.
	arrives(t, 10*time.Second, stays, moves)
	arrives(t, 10*time.Second, moves, stays)
	back := c.guest("back", c.nodes[1])
	arrives(t, 15*time.Second, stays, back)
	arrives(t, 15*time.Second, back, moves)
	stays.clean()
	moves.clean()
}

// Redis is away in several ways. Calls within a node go on, nodes stay ready, and on its return everything is as before without a restart.
func TestRedisOutage(t *testing.T) {
	for _, outage := range []struct {
		name      string
		cut, heal func(*cluster)
		local     bool // whether there is an outage in which local signals can be looked at
	}{
		{"killed and restarted empty", func(c *cluster) { c.redis.Kill() }, func(c *cluster) { c.redis.Start() }, true},
		{"stopped", func(c *cluster) { c.redis.Pause() }, func(c *cluster) { c.redis.Resume() }, true},
		{"flushed", func(c *cluster) { c.redis.Flush() }, func(*cluster) {}, false},
		{"unreachable without a word", func(c *cluster) { each(c.bus, (*testkit.Proxy).Cut) }, func(c *cluster) { each(c.bus, (*testkit.Proxy).Heal) }, true},
		{"connections reset", func(c *cluster) { each(c.bus, (*testkit.Proxy).Reset) }, func(*cluster) {}, false},
	} {
		t.Run(outage.name, func(t *testing.T) {
			c := newCluster(t)
			a1, a2 := c.guest("a1", c.nodes[0]), c.guest("a2", c.nodes[0])
			b := c.guest("b", c.nodes[1])
			for _, one := range []*wire{a1, a2} {
				meets(t, one, b)
			}
			arrives(t, 10*time.Second, a1, b)
			outage.cut(c)
			if outage.local {
				arrives(t, 5*time.Second, a1, a2)
				arrives(t, 5*time.Second, a2, a1)
				testkit.Eventually(t, 15*time.Second, "nodes say that the bus is degraded and stay ready", func() error {
					for _, node := range c.nodes {
						if text := ready(t, node); !strings.Contains(text, "degraded") {
							return fmt.Errorf("%s: %s", node.Name, text)
						}
					}
					return nil
				})
				arrives(t, 5*time.Second, a1, a2)
			}
			outage.heal(c)
			arrives(t, 20*time.Second, a1, b)
			arrives(t, 20*time.Second, b, a2)
			// Newcomers find everybody.
			d := c.guest("d", c.nodes[2])
			arrives(t, 20*time.Second, d, a1)
			arrives(t, 20*time.Second, b, d)
			testkit.Eventually(t, 20*time.Second, "nodes are well again", func() error {
				for _, node := range c.nodes {
					if text := ready(t, node); strings.Contains(text, "degraded") {
						return fmt.Errorf("%s: %s", node.Name, text)
					}
				}
				m := d.join("hall")
				if len(m.Peers) != 4 {
					return fmt.Errorf("in the room: %+v", m.Peers)
				}
				return nil
			})
			for _, one := range []*wire{a1, a2, b, d} {
				one.clean()
			}
		})
	}
}

func each[T any](all []T, f func(T)) {
	for _, one := range all {
		f(one)
	}
}

func TestNodeCutOffFromRedis(t *testing.T) {
	c := newCluster(t)
	a := c.guest("a", c.nodes[0])
	b := c.guest("b", c.nodes[1])
	meets(t, a, b)
	c.bus[1].Cut()
	// For the others it is gone after its lease.
	id := b.id()
	testkit.Eventually(t, 20*time.Second, "the node counts as gone", func() error {
		a.signal(id, "there?")
		return testkit.Poll(time.Second, func() error {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, m := range a.messages {
				if m.Type == "undeliverable" && m.To == id {
					return nil
				}
			}
			return fmt.Errorf("not told")
		})
	})
	c.bus[1].Heal()
	arrives(t, 20*time.Second, a, b)
	arrives(t, 20*time.Second, b, a)
	a.clean()
	b.clean()
}

func TestTwoConnectionsOfOneSession(t *testing.T) {
	c := newCluster(t)
	first := c.guest("first", c.nodes[0])
	other := c.guest("other", c.nodes[1])
	meets(t, first, other)
	first.mu.Lock()
	hello := map[string]any{"type": "hello", "resume": map[string]any{"token": first.resume, "seq": first.handled}}
	id := first.peer
	first.mu.Unlock()
	// The same session opens a second connection at another node: it takes over, and the first one is told.
	second, err := (entrance{urls: []string{c.nodes[2].URL("")}, client: c.nodes[2].Client(), token: c.token}).dialer()(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.CloseNow() }()
	if err := write(t.Context(), second, hello); err != nil {
		t.Fatal(err)
	}
	_, data, err := second.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var welcome message
	if err := json.Unmarshal(data, &welcome); err != nil || !welcome.Resumed || welcome.text(welcome.Peer) != id {
		t.Fatalf("welcome: %s (%v)", data, err)
	}
	select {
	case <-first.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the first connection lives on")
	}
	if code := websocket.CloseStatus(first.end); code != 4002 {
		t.Errorf("the first connection closed with %v, want 4002", first.end)
	}
	other.signal(id, "which of you?")
	for {
		_, data, err := second.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "which of you?") {
			break
		}
	}
	testkit.Eventually(t, 5*time.Second, "the first node keeps nothing of the session in Redis alive", func() error {
		response, err := c.nodes[0].Client().Get(c.nodes[0].MetricsURL("/metrics"))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), "\ncallbox_bus_directory_peers 0\n") {
			return errors.New("it counts as held there")
		}
		return nil
	})
	// A token of nobody's opens a new session, not this one.
	third, err := (entrance{urls: []string{c.nodes[0].URL("")}, client: c.nodes[0].Client(), token: c.token}).dialer()(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = third.CloseNow() }()
	forged := map[string]any{"type": "hello", "resume": map[string]any{"token": "made up", "seq": 0}}
	if err := write(t.Context(), third, forged); err != nil {
		t.Fatal(err)
	}
	_, data, err = third.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var fresh message
	if err := json.Unmarshal(data, &fresh); err != nil || fresh.Resumed || fresh.text(fresh.Peer) == id {
		t.Fatalf("a made-up token: %s (%v)", data, err)
	}
}

// A client that stops reading is closed, and what it has missed waits for it.
func TestSlowClientIsClosedAndResumes(t *testing.T) {
	c := newCluster(t)
	sender := c.guest("sender", c.nodes[0])
	slow, err := (entrance{urls: []string{c.nodes[1].URL("")}, client: c.nodes[1].Client(), token: c.token}).dialer()(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.CloseNow() }()
	if err := write(t.Context(), slow, map[string]any{"type": "hello"}); err != nil {
		t.Fatal(err)
	}
	var welcome message
	_, data, err := slow.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &welcome); err != nil {
		t.Fatal(err)
	}
	if err := write(t.Context(), slow, map[string]any{"type": "join", "room": "hall"}); err != nil {
		t.Fatal(err)
	}
	id := welcome.text(welcome.Peer)
	sender.await(10*time.Second, "presence", func(m message) bool { return m.Type == "peer-joined" && strings.Contains(string(m.Peer), id) })
	// 64 signals of 48 KiB are more than the queue of 1 MiB holds; no more than 4 MB a second are allowed.
	big := strings.Repeat("x", 48<<10)
	for range 64 {
		sender.signal(id, big)
	}
	busy := sender.await(20*time.Second, "word that the queue is full", func(m message) bool { return m.Type == "undeliverable" && m.To == id })
	if busy.Reason != "busy" {
		t.Errorf("undeliverable: %+v, want busy", busy)
	}
	for err == nil {
		_, _, err = slow.Read(t.Context())
	}
	if code := websocket.CloseStatus(err); code != 4003 {
		t.Fatalf("closed with %v, want 4003", err)
	}
	again, err := (entrance{urls: []string{c.nodes[2].URL("")}, client: c.nodes[2].Client(), token: c.token}).dialer()(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.CloseNow() }()
	if err := write(t.Context(), again, map[string]any{"type": "hello", "resume": map[string]any{"token": welcome.Resume, "seq": 1}}); err != nil {
		t.Fatal(err)
	}
	if _, data, err = again.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	var back message
	if err := json.Unmarshal(data, &back); err != nil || !back.Resumed {
		t.Fatalf("after 4003: %.200s (%v)", data, err)
	}
	if _, data, err = again.Read(t.Context()); err != nil || !strings.Contains(string(data), `"seq":2`) {
		t.Fatalf("what was missed does not follow: %.200s (%v)", data, err)
	}
}

// Every node is stopped and started again while pairs on all of them exchange numbered signals: each arrives once and in order.
func TestRollingRestartLosesNoSignal(t *testing.T) {
	c := newCluster(t)
	const pairs = 6
	var left, right []*wire
	for i := range pairs {
		left = append(left, c.guest(fmt.Sprintf("left%d", i)))
		right = append(right, c.guest(fmt.Sprintf("right%d", i)))
	}
	for i := range pairs {
		meets(t, left[i], right[i])
		meets(t, right[i], left[i])
	}
	stop := make(chan struct{})
	sent := make([]int, 2*pairs)
	var running sync.WaitGroup
	for i := range pairs {
		for side, ends := range [][2]*wire{{left[i], right[i]}, {right[i], left[i]}} {
			running.Add(1)
			go func() {
				defer running.Done()
				to := ends[1].id()
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for n := 0; ; n++ {
					select {
					case <-stop:
						sent[2*i+side] = n
						return
					case <-tick.C:
						ends[0].signal(to, n)
					}
				}
			}()
		}
	}
	// Twice around, so that every session has moved off a node that was new itself.
	for range 2 {
		for _, node := range c.nodes {
			node.Stop()
			node.Restart()
		}
	}
	close(stop)
	running.Wait()
	for i := range pairs {
		for side, ends := range [][2]*wire{{left[i], right[i]}, {right[i], left[i]}} {
			from, to, n := ends[0], ends[1], sent[2*i+side]
			testkit.Eventually(t, 30*time.Second, fmt.Sprintf("%s has everything from %s", to.name, from.name), func() error {
				if got := to.signals(from.id()); len(got) < n {
					return fmt.Errorf("%d of %d", len(got), n)
				}
				return nil
			})
			got := to.signals(from.id())
			if len(got) != n {
				t.Errorf("%s got %d signals from %s, %d were sent", to.name, len(got), from.name, n)
			}
			for k, data := range got {
				if data != fmt.Sprint(k) {
					t.Errorf("%s from %s: number %s at place %d", to.name, from.name, data, k)
					break
				}
			}
		}
	}
	moved, total := 0, 0
	for _, n := range sent {
		total += n
	}
	for _, w := range slices.Concat(left, right) {
		w.clean()
		w.mu.Lock()
		for _, m := range w.welcomes[1:] {
			moved++
			if !m.Resumed {
				t.Errorf("%s: a drained session was not resumed", w.name)
			}
		}
		for _, m := range w.messages {
			if m.Type == "undeliverable" {
				t.Errorf("%s: undeliverable: %+v", w.name, m)
				break
			}
		}
		w.mu.Unlock()
	}
	t.Logf("%d signals, %d moves", total, moved)
	if moved < 2*pairs {
		t.Errorf("only %d sessions have moved while all nodes were restarted", moved)
	}
}
