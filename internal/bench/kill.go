package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/signal/client"
)

// measureKill kills a node with many clients and takes the time until each is
// back in its room on one of the two other nodes. Every room has three clients
// on the node that dies and one elsewhere. Those who have to come back are
// programs with the Go client, which does it as docs/protocol.md asks.
func measureKill(r *rig, s sizes) []figure {
	c := startCluster(r, 3)
	rooms := s.Victims / 3
	var others []*peer
	for i := range rooms {
		others = append(others, c.peer(fmt.Sprintf("room%d", i)))
	}
	c.connectAll(others, func(i int) string { return c.nodes[1+i%2].Addr() })
	victims := c.victims(3 * rooms)
	c.healthy(others)

	watch := watchRedis(c.t, c.redis.Addr)
	calm := watch.during(c.t, 2*time.Second)
	ctx, cancel := context.WithTimeout(c.t.Context(), 60*time.Second)
	defer cancel()
	begun := time.Now()
	c.nodes[0].Kill()
	back := make([]time.Duration, len(victims))
	faults := make([]error, len(victims))
	var wg sync.WaitGroup
	for i, v := range victims {
		wg.Go(func() {
			faults[i] = rejoined(ctx, v)
			back[i] = time.Since(begun)
		})
	}
	wg.Wait()
	took := time.Since(begun)
	busy := watch.stop(c.t)
	failed := 0
	for _, err := range faults {
		if err == nil {
			continue
		}
		if failed++; failed < 4 {
			c.t.Logf("a client is not back: %v", err)
		}
	}
	c.healthy(others)
	if failed > 0 {
		c.t.Fatalf("%d of %d clients are not back", failed, len(victims))
	}
	return []figure{
		figure{Name: fmt.Sprintf("all %d clients back in their rooms", len(victims)), Value: took.Seconds(), Unit: "s"}.atMost(10),
		{Name: "half of them", Value: median(back).Seconds(), Unit: "s"},
		{Name: "requests to Redis a second, before", Value: calm.mean, Unit: "/s"},
		{Name: "requests to Redis a second, meanwhile, mean", Value: busy.mean, Unit: "/s"},
		{Name: "requests to Redis a second, busiest 250 ms", Value: busy.peak, Unit: "/s"},
		{Name: "requests to Redis for each client", Value: (busy.total - calm.mean*took.Seconds()) / float64(len(victims)), Unit: ""},
		{Name: "commands a second, those within scripts too, busiest 250 ms", Value: busy.commands, Unit: "/s"},
	}
}

// victims are clients on the first node, three to a room. They have taken what they were told, and know the other nodes.
func (c *cluster) victims(n int) []*client.Client {
	c.t.Helper()
	all := make([]*client.Client, n)
	errs := make([]error, n)
	turn := make(chan struct{}, 64)
	var wg sync.WaitGroup
	for i := range all {
		room := fmt.Sprintf("room%d", i/3)
		token := c.peer(room).token
		others := []string{c.nodes[1+i%2].URL(""), c.nodes[2-i%2].URL("")}
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
			defer cancel()
			v, err := client.Dial(ctx, c.nodes[0].URL(""), client.Options{Token: token, Others: others})
			if err != nil {
				errs[i] = err
				return
			}
			all[i] = v
			_, errs[i] = v.Join(ctx, room)
		})
	}
	wg.Wait()
	c.t.Cleanup(func() {
		var closing sync.WaitGroup
		for _, v := range all {
			if v != nil {
				closing.Go(func() { _ = v.Close() })
			}
		}
		closing.Wait()
	})
	c.must(errors.Join(errs...))
	return all
}

// rejoined waits until a client has lost its session and is in its room again.
func rejoined(ctx context.Context, v *client.Client) error {
	lost := false
	for {
		e, err := v.Next(ctx)
		if err != nil {
			return err
		}
		switch e.(type) {
		case client.Disconnected:
			lost = true
		case client.Joined:
			if lost {
				return nil
			}
		}
	}
}

// redisLoad is how many requests Redis has had.
type redisLoad struct {
	mean, peak float64 // requests a second
	commands   float64 // a second at the most, with those that scripts run
	total      float64 // requests
}

// watcher asks Redis for its command counters every 250 ms.
type watcher struct {
	conn net.Conn
	r    *bufio.Reader
	quit chan struct{}
	done chan struct{}

	mu      sync.Mutex
	samples []sample
	err     error
}

type sample struct {
	at                 time.Time
	requests, commands float64
}

func watchRedis(t testing.TB, addr string) *watcher {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), quit: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	t.Cleanup(func() { w.end() })
	return w
}

func (w *watcher) end() {
	w.mu.Lock()
	select {
	case <-w.quit:
	default:
		close(w.quit)
	}
	w.mu.Unlock()
	<-w.done
	_ = w.conn.Close()
}

func (w *watcher) run() {
	defer close(w.done)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := w.ask()
		w.mu.Lock()
		if err != nil {
			w.err = err
			w.mu.Unlock()
			return
		}
		w.samples = append(w.samples, s)
		w.mu.Unlock()
		select {
		case <-w.quit:
			return
		case <-tick.C:
		}
	}
}

// ask reads INFO commandstats. Requests are calls of scripts and publications; what scripts call is counted with the commands only.
func (w *watcher) ask() (sample, error) {
	_ = w.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := w.conn.Write([]byte("*2\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n")); err != nil {
		return sample{}, err
	}
	head, err := w.r.ReadString('\n')
	if err != nil {
		return sample{}, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(head, "$")))
	if err != nil {
		return sample{}, fmt.Errorf("answer to INFO: %q", head)
	}
	s := sample{at: time.Now()}
	for read := 0; read < n+2; {
		line, err := w.r.ReadString('\n')
		if err != nil {
			return sample{}, err
		}
		read += len(line)
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":calls=")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, ",")
		calls, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return sample{}, err
		}
		s.commands += calls
		switch strings.TrimPrefix(name, "cmdstat_") {
		case "evalsha", "eval", "publish": // nearly all that nodes ask for
			s.requests += calls
		}
	}
	return s, nil
}

// during forgets what was and returns the load of the time given.
func (w *watcher) during(t testing.TB, d time.Duration) redisLoad {
	w.mu.Lock()
	w.samples = nil
	w.mu.Unlock()
	time.Sleep(d)
	l := w.load(t)
	w.mu.Lock()
	w.samples = w.samples[len(w.samples)-1:]
	w.mu.Unlock()
	return l
}

// stop returns the load since during.
func (w *watcher) stop(t testing.TB) redisLoad {
	w.end()
	return w.load(t)
}

func (w *watcher) load(t testing.TB) redisLoad {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || len(w.samples) < 2 {
		t.Fatalf("counters of Redis: %d samples: %v", len(w.samples), w.err)
	}
	var l redisLoad
	first, last := w.samples[0], w.samples[len(w.samples)-1]
	l.total = last.requests - first.requests
	l.mean = l.total / last.at.Sub(first.at).Seconds()
	for i, s := range w.samples[1:] {
		before := w.samples[i]
		seconds := s.at.Sub(before.at).Seconds()
		l.peak = max(l.peak, (s.requests-before.requests)/seconds)
		l.commands = max(l.commands, (s.commands-before.commands)/seconds)
	}
	return l
}
