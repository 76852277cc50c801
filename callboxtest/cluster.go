package callboxtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"callbox/internal/control"
)

// Cluster is several servers that share a Redis in the test process.
type Cluster struct {
	Nodes []*Server
	Redis *miniredis.Miniredis // to be closed, emptied or delayed by tests of failures

	t testing.TB
}

// tick is how often the Redis of a cluster is told that time has passed: it expires nothing by itself.
const tick = 100 * time.Millisecond

// StartCluster starts n servers. They end with the test, before their Redis.
func StartCluster(t testing.TB, n int, options ...Option) *Cluster {
	t.Helper()
	redis := miniredis.NewMiniRedis()
	if err := redis.Start(); err != nil {
		t.Fatalf("callboxtest: Redis: %v", err)
	}
	t.Cleanup(redis.Close)
	stopClock := clock(redis)
	t.Cleanup(stopClock)
	c := &Cluster{Redis: redis, t: t}
	secret := newSecret(t)
	for i := range n {
		g := newGate(t, redis.Addr())
		s := start(t, secret, g, append([]Option{
			WithFlag("bus", "redis://"+g.addr()),
			WithFlag("node-name", fmt.Sprintf("node%d", i+1)),
		}, options...))
		s.cluster = c
		c.Nodes = append(c.Nodes, s)
	}
	return c
}

// Kill ends a node as a lost machine ends: its connections break, its relays are gone, and nobody is told. Clients of
// Server.Client come back on other nodes. What is left of it in the background is waited for when the test ends.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	s := c.Nodes[i]
	s.killed.Store(true)
	s.gate.close() // first: the others must not hear of it
	s.conns.cut()
	if err := s.app.Kill(); err != nil {
		c.t.Errorf("callboxtest: %s: %v", s.URL, err)
	}
	go func() { _ = s.stop() }() // Close waits for it
}

// everywhere waits until every node that is there knows something.
func (s *Server) everywhere(ctx context.Context, what string, known func(*control.Client) (bool, error)) {
	s.t.Helper()
	if s.cluster == nil {
		return
	}
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for _, node := range s.cluster.Nodes {
		for !node.killed.Load() {
			ok, err := known(node.control)
			if ok || errors.Is(err, control.ErrNoServer) { // the test has stopped it
				break
			}
			select {
			case <-again.C:
			case <-ctx.Done():
				s.t.Fatalf("callboxtest: %s is not known at %s: %v", what, node.URL, err)
			}
		}
	}
}

// clock lets keys expire as the time of the test passes. The function it returns stops it and waits.
func clock(redis *miniredis.Miniredis) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				redis.FastForward(tick)
			}
		}
	})
	return func() { close(done); wg.Wait() }
}
