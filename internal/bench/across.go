package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

const (
	pairCount  = 64
	windowSize = 8 // signals under way at once of a pair, in the saturated load
)

// measureAcross compares a signal between peers on two nodes with one between
// peers on one node, and with a bare publication.
func measureAcross(r *rig, s sizes) []figure {
	c := startCluster(r, 2)
	var figures []figure
	for _, size := range []int{200, 1500} {
		figures = append(figures, c.latency(size, s)...)
	}
	return append(figures, c.cost(s)...)
}

// latency sends one message at a time, the three kinds in turn.
func (c *cluster) latency(size int, s sizes) []figure {
	raw := newRawPath(c.t, c.redis.Addr, fmt.Sprintf("bare%d", size))
	prefix := fmt.Sprintf("latency%d-", size)
	left, right, all := c.pairs(2, prefix)
	at := []int{0, 0, 0, 1} // the first pair on one node, the second on two
	c.connectAll(all, func(i int) string { return c.nodes[at[i]].Addr() })
	arrived := make(chan time.Time, 1)
	for i := range left {
		left[i].aim(right[i])
		right[i].heard = func([]byte) { arrived <- time.Now() }
	}
	data := payload(size)
	var bare, local, across []time.Duration
	for n := range s.Samples + 100 {
		if c.t.Context().Err() != nil {
			c.t.Fatal("interrupted")
		}
		begun := time.Now()
		raw.publish(c.t, string(data))
		bareTook := waitFor(c.t, "bare", raw.arrived).Sub(begun)
		begun = time.Now()
		c.must(left[0].signal(data))
		localTook := waitFor(c.t, "local", arrived).Sub(begun)
		begun = time.Now()
		c.must(left[1].signal(data))
		acrossTook := waitFor(c.t, "across", arrived).Sub(begun)
		if n >= 100 { // the first ones find everything cold
			bare, local, across = append(bare, bareTook), append(local, localTook), append(across, acrossTook)
		}
	}
	c.healthy(all)
	above := micros(median(across) - median(bare))
	kind := fmt.Sprintf(", %d B", size)
	return []figure{
		{Name: "bare publication, median" + kind, Value: micros(median(bare)), Unit: "µs"},
		{Name: "signal on one node, median" + kind, Value: micros(median(local)), Unit: "µs"},
		{Name: "signal across nodes, median" + kind, Value: micros(median(across)), Unit: "µs"},
		figure{Name: "across nodes above bare" + kind, Value: above, Unit: "µs"}.atMost(150),
		{Name: "signal across nodes, 99 of 100" + kind, Value: micros(quantile(across, 0.99)), Unit: "µs"},
	}
}

func waitFor(t testing.TB, what string, arrived <-chan time.Time) time.Time {
	t.Helper()
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	select {
	case at := <-arrived:
		return at
	case <-timeout.C:
		t.Fatalf("%s: a message does not arrive", what)
		return time.Time{}
	}
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// rawPath is publish/subscribe without callbox: a client that publishes and one that subscribes.
type rawPath struct {
	pub     rueidis.Client
	channel string
	arrived chan time.Time
}

func newRawPath(t testing.TB, addr, channel string) *rawPath {
	t.Helper()
	option := rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1}
	pub, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := rueidis.NewClient(option)
	if err != nil {
		pub.Close()
		t.Fatal(err)
	}
	p := &rawPath{pub: pub, channel: channel, arrived: make(chan time.Time, 1)}
	confirmed := make(chan struct{}, 1)
	dedicated, _ := sub.Dedicate()
	t.Cleanup(func() { dedicated.Close(); sub.Close(); pub.Close() })
	dedicated.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage:      func(rueidis.PubSubMessage) { p.arrived <- time.Now() },
		OnSubscription: func(rueidis.PubSubSubscription) { confirmed <- struct{}{} },
	})
	if err := dedicated.Do(t.Context(), sub.B().Subscribe().Channel(p.channel).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-confirmed:
	case <-time.After(10 * time.Second):
		t.Fatal("Redis does not confirm a subscription")
	}
	return p
}

func (p *rawPath) publish(t testing.TB, data string) {
	if err := p.pub.Do(context.Background(), p.pub.B().Publish().Channel(p.channel).Message(data).Build()).Error(); err != nil {
		t.Fatal(err)
	}
}

// load is what one run of signals between pairs has cost.
type load struct {
	rate         float64 // messages a second
	nodes, redis float64 // µs of CPU a message
}

// cost compares the CPU of signals on one node with that of signals across two:
// the same pairs, half of the local ones on each node, rounds in turn.
func (c *cluster) cost(s sizes) []figure {
	const size = 500
	home := map[string]func(i int) string{
		"local":  func(i int) string { return c.nodes[i/2%2].Addr() },
		"across": func(i int) string { return c.nodes[i%2].Addr() },
	}
	rates := []int{s.Rate, 4 * s.Rate}
	runs := map[string][]load{}
	for _, where := range []string{"local", "across"} {
		left, right, all := c.pairs(pairCount, where)
		c.connectAll(all, home[where])
		for i := range left {
			left[i].aim(right[i])
			right[i].aim(left[i])
		}
		for range s.Rounds {
			for _, rate := range rates {
				kind := fmt.Sprintf("%s %d/s", where, rate)
				runs[kind] = append(runs[kind], c.steady(left, right, size, rate, s.duration()))
			}
			runs[where+" saturated"] = append(runs[where+" saturated"], c.saturated(left, right, size, s))
		}
		c.healthy(all)
	}
	var figures []figure
	for _, title := range []string{fmt.Sprintf("%d/s", rates[0]), fmt.Sprintf("%d/s", rates[1]), "saturated"} {
		local, across := runs["local "+title], runs["across "+title]
		of := func(all []load, f func(load) float64) float64 {
			var values []float64
			for _, l := range all {
				values = append(values, f(l))
			}
			return median(values)
		}
		nodes := func(l load) float64 { return l.nodes }
		redis := func(l load) float64 { return l.redis }
		rate := func(l load) float64 { return l.rate }
		figures = append(figures,
			figure{Name: "CPU of nodes a signal, local, " + title, Value: of(local, nodes), Unit: "µs"},
			figure{Name: "CPU of nodes a signal, across, " + title, Value: of(across, nodes), Unit: "µs"},
			figure{Name: "CPU of Redis a signal, across, " + title, Value: of(across, redis), Unit: "µs"},
			figure{Name: "signals a CPU second, across / local, " + title, Value: of(local, nodes) / of(across, nodes), Unit: ""}.atLeast(0.5),
			figure{Name: "the same with Redis counted, " + title, Value: of(local, nodes) / (of(across, nodes) + of(across, redis)), Unit: ""},
		)
		if title == "saturated" {
			figures = append(figures,
				figure{Name: "signals a second, local, " + title, Value: of(local, rate), Unit: "/s"},
				figure{Name: "signals a second, across, " + title, Value: of(across, rate), Unit: "/s"},
			)
		}
	}
	return figures
}

// steady sends at the given rate, both ways between the pairs in turn, and waits for all.
func (c *cluster) steady(left, right []*peer, size, rate int, d time.Duration) load {
	data := payload(size)
	var got atomic.Int64
	for i := range left {
		left[i].heard = func([]byte) { got.Add(1) }
		right[i].heard = left[i].heard
	}
	nodes, redis := c.cpu()
	begun := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sent := int64(0)
	for time.Since(begun) < d {
		<-tick.C
		for due := int64(time.Since(begun).Seconds() * float64(rate)); sent < due; sent++ {
			i := int(sent/2) % len(left)
			from := left[i]
			if sent%2 == 1 {
				from = right[i]
			}
			c.must(from.signal(data))
		}
	}
	c.settle(&got, sent)
	return c.since(nodes, redis, begun, sent)
}

// saturated keeps a number of signals under way from left to right of every pair.
func (c *cluster) saturated(left, right []*peer, size int, s sizes) load {
	data := payload(size)
	var got, sent atomic.Int64
	end := time.Now().Add(s.duration())
	for i := range left {
		left[i].heard = func([]byte) {}
		right[i].heard = func([]byte) {
			got.Add(1)
			if time.Now().Before(end) {
				sent.Add(1)
				if err := left[i].signal(data); err != nil {
					left[i].fault(err.Error())
				}
			}
		}
	}
	nodes, redis := c.cpu()
	begun := time.Now()
	for range windowSize {
		for _, p := range left {
			sent.Add(1)
			c.must(p.signal(data))
		}
	}
	for time.Now().Before(end) && c.t.Context().Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	c.settle(&got, sent.Load())
	return c.since(nodes, redis, begun, got.Load())
}

func (c *cluster) settle(got *atomic.Int64, sent int64) {
	c.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for got.Load() < sent {
		if time.Now().After(deadline) || c.t.Context().Err() != nil {
			c.t.Fatalf("%d of %d signals have arrived", got.Load(), sent)
		}
		time.Sleep(time.Millisecond)
	}
}

func (c *cluster) since(nodes, redis time.Duration, begun time.Time, messages int64) load {
	nodesNow, redisNow := c.cpu()
	n := float64(messages)
	return load{
		rate:  n / time.Since(begun).Seconds(),
		nodes: micros(nodesNow-nodes) / n,
		redis: micros(redisNow-redis) / n,
	}
}
