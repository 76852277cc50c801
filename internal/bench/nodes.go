package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"callbox/bus"
	"callbox/bus/redis"
	"callbox/internal/testkit"
)

// members is how many peers the nodes hold together; half of them send to the other half and back.
const members = 512

// measureNodes sends the same load, at the same rate, between the same number
// of peers on clusters of several sizes: to the one node that holds the peer,
// as the bus does, and to all nodes, as a bus without a directory would.
// The nodes share this process, so its CPU time is theirs; what they cost at
// rest (leases, the list of nodes) is measured first and taken off.
func measureNodes(r *rig, s sizes) []figure {
	type kind struct {
		all bool
		n   int
	}
	costs, rests := map[kind][]float64{}, map[kind][]float64{}
	for range s.Rounds { // each round has every kind, so that a change of the machine's mood falls on all
		for _, n := range s.Nodes {
			for _, all := range []bool{false, true} {
				cost, rest := spread(r, s, n, all)
				k := kind{all, n}
				costs[k], rests[k] = append(costs[k], cost), append(rests[k], rest)
			}
		}
	}
	var figures []figure
	first, last := s.Nodes[0], s.Nodes[len(s.Nodes)-1]
	for _, all := range []bool{false, true} {
		name := "to the peer's node"
		if all {
			name = "to all nodes"
		}
		for _, n := range s.Nodes {
			cost := median(costs[kind{all, n}])
			figures = append(figures, figure{Name: fmt.Sprintf("CPU a message, %s, %d nodes", name, n), Value: cost, Unit: "µs"})
			if n == first {
				continue
			}
			f := figure{Name: fmt.Sprintf("%s, %d nodes / %d nodes", name, n, first), Value: cost / median(costs[kind{all, first}])}
			if !all && n == last {
				f = f.atMost(1.2)
			}
			figures = append(figures, f)
		}
	}
	for _, n := range s.Nodes {
		figures = append(figures, figure{Name: fmt.Sprintf("CPU at rest, all of %d nodes and Redis", n), Value: median(rests[kind{false, n}]), Unit: "ms/s"})
	}
	return figures
}

// sink counts what a node of this process is handed.
type sink struct{ got, lost *atomic.Int64 }

func (s sink) Message(bus.NodeID, []byte)     { s.got.Add(1) }
func (s sink) Lost(bus.NodeID, []byte, error) { s.lost.Add(1) }
func (s sink) Changed(string, string)         {}
func (s sink) NodesChanged([]bus.NodeInfo)    {}
func (s sink) Link(bool)                      {}

// spread returns the CPU of a message in µs, of this process and Redis, and what the nodes use at rest in ms a second.
func spread(r *rig, s sizes, n int, all bool) (cost, rest float64) {
	server := testkit.Redis(r)
	defer server.Kill()
	var got, lost atomic.Int64
	nodes := make([]*redis.Bus, 0, n)
	defer func() {
		for _, b := range nodes {
			_ = b.Close()
		}
	}()
	for i := range n {
		b, err := redis.Open(context.Background(), redis.Config{URL: server.URL(), Name: fmt.Sprint("node", i)})
		if err != nil {
			r.Fatal(err)
		}
		nodes = append(nodes, b)
		if err := b.Start(sink{&got, &lost}); err != nil {
			r.Fatal(err)
		}
	}
	for _, b := range nodes {
		testkit.Eventually(r, 20*time.Second, "all nodes are seen", func() error {
			if seen := len(b.Nodes()); seen != n {
				return fmt.Errorf("%d of %d", seen, n)
			}
			return nil
		})
	}
	used := func() time.Duration {
		own, err := ownCPU()
		if err != nil {
			r.Fatal(err)
		}
		theirs, err := cpuOf(server.Pid())
		if err != nil {
			r.Fatal(err)
		}
		return own + theirs
	}
	data := make([]byte, 500)
	send := func(from, to int) int64 {
		if err := nodes[from].Send(nodes[to].Self(), data); err != nil {
			r.Fatal(err)
		}
		return 1
	}
	// The first messages make links and buffers.
	expected := int64(0)
	for from := range n {
		for to := range n {
			if to != from {
				expected += send(from, to)
			}
		}
	}
	arrive(r, &got, &lost, expected)
	pause(r.ctx, time.Second)

	before, begun := used(), time.Now()
	pause(r.ctx, s.duration()/2)
	resting := float64(used()-before) / float64(time.Since(begun))

	before, begun = used(), time.Now()
	sent := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(begun) < s.duration() && r.ctx.Err() == nil {
		<-tick.C
		for due := int(time.Since(begun).Seconds() * float64(s.Rate)); sent < due; sent++ {
			// Peer i talks with peer i+half; which nodes they are on follows from their numbers, never the same one.
			i := sent % (members / 2)
			from := i % n
			to := (from + 1 + i/n%(n-1)) % n
			if sent/(members/2)%2 == 1 {
				from, to = to, from
			}
			if !all {
				expected += send(from, to)
				continue
			}
			for to := range n {
				if to != from {
					expected += send(from, to)
				}
			}
		}
	}
	arrive(r, &got, &lost, expected)
	// The receipts of the last messages belong to the cost.
	time.Sleep(100 * time.Millisecond)
	total := float64(used()-before) - resting*float64(time.Since(begun))
	return total / float64(sent) / 1000, resting * 1000
}

// arrive waits until so many messages have arrived.
func arrive(r *rig, got, lost *atomic.Int64, expected int64) {
	deadline := time.Now().Add(10 * time.Second)
	for got.Load() < expected && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if got.Load() != expected || lost.Load() != 0 {
		r.Fatalf("%d of %d messages have arrived, %d came back", got.Load(), expected, lost.Load())
	}
}

// pause waits.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
