package main

import (
	"fmt"
	"time"
)

// measureIdle connects clients in rooms of two, each on another node, and looks at the nodes' resident memory.
func measureIdle(r *rig, s sizes) []figure {
	c := startCluster(r, 2)
	// What the first clients load once is not the cost of a connection.
	_, _, warm := c.pairs(50, "warm")
	c.connectAll(warm, func(i int) string { return c.nodes[i%2].Addr() })
	before := c.resident()
	begun := time.Now()
	_, _, all := c.pairs(s.Idle/2, "idle")
	c.connectAll(all, func(i int) string { return c.nodes[i%2].Addr() })
	took := time.Since(begun)
	at := c.resident()
	// What pings and their answers need is part of the cost.
	wait := time.NewTimer(s.Watch)
	defer wait.Stop()
	nodesBefore, _ := c.cpu()
	watched := time.Now()
	select {
	case <-wait.C:
	case <-c.t.Context().Done():
		c.t.Fatal("interrupted")
	}
	nodesAfter, _ := c.cpu()
	after := c.resident()
	c.healthy(all)
	n := float64(len(all))
	perSecond := float64(nodesAfter-nodesBefore) / float64(time.Since(watched)) * 1000
	return []figure{
		figure{Name: fmt.Sprintf("resident memory an idle connection, %d in rooms of two", len(all)), Value: float64(after-before) / n / 1024, Unit: "KiB"}.atMost(12),
		{Name: "the same right after connecting", Value: float64(at-before) / n / 1024, Unit: "KiB"},
		{Name: "connections and joins a second", Value: n / took.Seconds(), Unit: "/s"},
		{Name: "CPU of both nodes meanwhile", Value: perSecond, Unit: "ms/s"},
	}
}

func (c *cluster) resident() int64 {
	c.t.Helper()
	var sum int64
	for _, node := range c.nodes {
		n, err := residentOf(node.Pid())
		if err != nil {
			c.t.Fatal(err)
		}
		sum += n
	}
	return sum
}
