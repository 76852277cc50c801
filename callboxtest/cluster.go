package callboxtest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Cluster is several servers that share a Redis in the test process.
type Cluster struct {
	Nodes []*Server
	Redis *miniredis.Miniredis // to be closed, emptied or delayed by tests of failures
}

// tick is how often the Redis of a cluster is told that time has passed: it expires nothing by itself.
const tick = 100 * time.Millisecond

// NewCluster starts n servers. They end with the test, before their Redis.
func NewCluster(t testing.TB, n int, options ...Option) *Cluster {
	t.Helper()
	redis := miniredis.NewMiniRedis()
	if err := redis.Start(); err != nil {
		t.Fatalf("callboxtest: Redis: %v", err)
	}
	t.Cleanup(redis.Close)
	stopClock := clock(redis)
	t.Cleanup(stopClock)
	c := &Cluster{Redis: redis}
	secret := newSecret(t)
	for i := range n {
		c.Nodes = append(c.Nodes, start(t, secret, append([]Option{
			WithFlag("bus", "redis://"+redis.Addr()),
			WithFlag("node-name", fmt.Sprintf("node%d", i+1)),
			WithFlag("drain-timeout", "0s"),
		}, options...)))
	}
	return c
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
