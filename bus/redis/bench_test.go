package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"callbox/bus"
	"callbox/bus/bustest"
)

// counter is a handler that only says that something came.
type counter struct {
	bus.Handler
	got  chan struct{}
	lost chan error
}

func newCounter() *counter {
	return &counter{got: make(chan struct{}, 1<<16), lost: make(chan error, 1<<16)}
}

func (c *counter) Message(bus.NodeID, []byte)             { c.got <- struct{}{} }
func (c *counter) Lost(_ bus.NodeID, _ []byte, why error) { c.lost <- why }
func (c *counter) Changed(string, string)                 {}
func (c *counter) NodesChanged([]bus.NodeInfo)            {}
func (c *counter) Link(bool)                              {}

func (c *counter) wait(t testing.TB, n int) {
	t.Helper()
	timeout := time.NewTimer(30 * time.Second)
	defer timeout.Stop()
	for range n {
		select {
		case <-c.got:
		case why := <-c.lost:
			t.Fatalf("a message came back: %v", why)
		case <-timeout.C:
			t.Fatal("a message does not arrive")
		}
	}
}

func benchNodes(t testing.TB, address string, n int) ([]*Bus, []*counter) {
	t.Helper()
	var nodes []*Bus
	var counters []*counter
	for i := range n {
		b, err := Open(context.Background(), Config{URL: "redis://" + address, Name: fmt.Sprint("n", i)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		c := newCounter()
		if err := b.Start(c); err != nil {
			t.Fatal(err)
		}
		nodes, counters = append(nodes, b), append(counters, c)
	}
	for _, b := range nodes {
		bustest.Eventually(t, 10*time.Second, "all nodes", func() bool { return len(b.Nodes()) == n })
	}
	return nodes, counters
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2].Nanoseconds()) / 1000
}

// BenchmarkOneMessage compares a message from node to node with a bare
// publication of the same bytes, one at a time, turn by turn in one run.
func BenchmarkOneMessage(b *testing.B) {
	for _, size := range []int{200, 2000} {
		b.Run(fmt.Sprint(size, "B"), func(b *testing.B) {
			s := startServer(b)
			nodes, counters := benchNodes(b, s.address(), 2)
			target, err := parseURL("redis://" + s.address())
			if err != nil {
				b.Fatal(err)
			}
			pub, err := rueidis.NewClient(target.option)
			if err != nil {
				b.Fatal(err)
			}
			defer pub.Close()
			sub, err := rueidis.NewClient(target.option)
			if err != nil {
				b.Fatal(err)
			}
			defer sub.Close()
			got := make(chan struct{}, 1)
			ready := make(chan struct{}, 1)
			c, cancel := sub.Dedicate()
			defer cancel()
			c.SetPubSubHooks(rueidis.PubSubHooks{
				OnMessage:      func(rueidis.PubSubMessage) { got <- struct{}{} },
				OnSubscription: func(rueidis.PubSubSubscription) { ready <- struct{}{} },
			})
			if err := c.Do(context.Background(), sub.B().Subscribe().Channel("raw").Build()).Error(); err != nil {
				b.Fatal(err)
			}
			<-ready
			data := make([]byte, size)
			text := string(data)
			var raw, ours []time.Duration
			b.ResetTimer()
			for range b.N {
				started := time.Now()
				if err := pub.Do(context.Background(), pub.B().Publish().Channel("raw").Message(text).Build()).Error(); err != nil {
					b.Fatal(err)
				}
				<-got
				raw = append(raw, time.Since(started))
				started = time.Now()
				if err := nodes[0].Send(nodes[1].Self(), data); err != nil {
					b.Fatal(err)
				}
				counters[1].wait(b, 1)
				ours = append(ours, time.Since(started))
			}
			r, o := median(raw), median(ours)
			b.ReportMetric(r, "raw-µs")
			b.ReportMetric(o, "bus-µs")
			b.ReportMetric(o-r, "above-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkNodes shows what a message costs by the number of nodes, and what it
// would cost to send each to all of them. Every node has one message under way,
// so no message gains by riding with others. CPU time is that of all nodes
// (they share this process) and of Redis.
func BenchmarkNodes(b *testing.B) {
	for _, all := range []bool{false, true} {
		for _, n := range []int{2, 8, 32} {
			name := fmt.Sprint("ToOne/", n)
			if all {
				name = fmt.Sprint("ToAll/", n)
			}
			b.Run(name, func(b *testing.B) {
				s := startServer(b)
				nodes, counters := benchNodes(b, s.address(), n)
				data := make([]byte, 500)
				round := func(shift, count int) {
					expect := make([]int, n)
					for from := range count {
						for d := 1; d < n; d++ {
							if all || d == 1+shift%(n-1) {
								to := (from + d) % n
								sendOne(b, nodes[from], nodes[to].Self(), data)
								expect[to]++
							}
						}
					}
					for i, count := range expect {
						counters[i].wait(b, count)
					}
				}
				for shift := range n {
					round(shift, n) // every pair has met
				}
				b.ResetTimer()
				cpu, redis := cpuTime(b), s.cpuTime(b)
				for sent := 0; sent < b.N; sent += n {
					round(sent/n, min(n, b.N-sent))
				}
				b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/msg")
				b.ReportMetric(float64((s.cpuTime(b)-redis).Microseconds())/float64(b.N), "redis-µs/msg")
			})
		}
	}
}

// cpuTime is what the server has used.
func (s *server) cpuTime(t testing.TB) time.Duration {
	target, err := parseURL("redis://" + s.address())
	if err != nil {
		t.Fatal(err)
	}
	c, err := rueidis.NewClient(target.option)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info, err := c.Do(context.Background(), c.B().Info().Section("cpu").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += seconds
		}
	}
	return time.Duration(sum * float64(time.Second))
}

func sendOne(b *testing.B, from *Bus, to bus.NodeID, data []byte) {
	b.Helper()
	if err := from.Send(to, data); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkLocateMiss(b *testing.B) {
	s := startServer(b)
	nodes, _ := benchNodes(b, s.address(), 2)
	ctx := context.Background()
	b.ResetTimer()
	for i := range b.N {
		if _, _, err := nodes[0].Locate(ctx, fmt.Sprint("nobody", i), 10*time.Second); err == nil {
			b.Fatal("found")
		}
	}
}
