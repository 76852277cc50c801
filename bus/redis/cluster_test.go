package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"callbox/bus"
	"callbox/bus/bustest"
)

// startRedisCluster starts three masters and waits until they are one cluster.
func startRedisCluster(t testing.TB) (url string, servers []*server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var clients []rueidis.Client
	for range 3 {
		s := startServer(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(freePort(t)), "--cluster-node-timeout", "2000")
		c, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{s.address()}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		servers, clients = append(servers, s), append(clients, c)
	}
	do := func(c rueidis.Client, words ...string) string {
		t.Helper()
		answer, err := c.Do(ctx, c.B().Arbitrary(words...).Build()).ToString()
		if err != nil {
			t.Fatalf("%v: %v", words, err)
		}
		return answer
	}
	for i, first := range []int{0, 5461, 10923} {
		last := []int{5460, 10922, 16383}[i]
		do(clients[i], "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
		do(clients[i], "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(first), fmt.Sprint(last))
	}
	// Only now: a node takes an epoch as long as it knows no other.
	for i, c := range clients {
		for _, other := range servers {
			if other != servers[i] {
				do(c, "CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(other.port), busPort(other))
			}
		}
	}
	for _, c := range clients {
		bustest.Eventually(t, 30*time.Second, "the Redis Cluster to form", func() bool {
			info := do(c, "CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	url = "redis+cluster://"
	for i, s := range servers {
		if i > 0 {
			url += ","
		}
		url += s.address()
	}
	return url, servers
}

func busPort(s *server) string {
	for i, a := range s.args {
		if a == "--cluster-port" {
			return s.args[i+1]
		}
	}
	return ""
}

func TestConformanceRedisCluster(t *testing.T) {
	t.Parallel()
	url, _ := startRedisCluster(t)
	bustest.Run(t, func(t *testing.T) bustest.Cluster {
		c := newCluster(t, url, nil)
		c.flushAll(t)
		return c
	})
}

func TestRedisClusterLosesAMaster(t *testing.T) {
	t.Parallel()
	url, servers := startRedisCluster(t)
	for i, s := range servers {
		a, la := openLedger(t, url, "a")
		b, lb := openLedger(t, url, "b")
		exchange(t, a, b, la, lb)
		ctx := context.Background()
		g, err := a.Claim(ctx, bus.Claim{Peer: "p", Proof: []byte("proof")})
		if err != nil {
			t.Fatal(err)
		}
		s.kill()
		bustest.Eventually(t, 20*time.Second, "a link to be down", func() bool { return !a.Stats().LinkUp || !b.Stats().LinkUp })
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		bustest.Eventually(t, 40*time.Second, "both nodes to see each other again", func() bool {
			return a.Stats().LinkUp && b.Stats().LinkUp && len(a.Nodes()) == 2 && len(b.Nodes()) == 2
		})
		na, nb := len(la.gotten()), len(lb.gotten())
		bustest.Eventually(t, 20*time.Second, "messages each way", func() bool {
			// Some may come back while the shards find each other.
			there, back := a.Send(b.Self(), []byte("x")), b.Send(a.Self(), []byte("x"))
			return there == nil && back == nil && len(la.gotten()) > na && len(lb.gotten()) > nb
		})
		var h bus.Grant
		again := bus.Claim{Peer: "p", Proof: []byte("proof"), Held: g.Epoch}
		bustest.Eventually(t, 20*time.Second, "the peer to be claimed again", func() bool {
			h, err = a.Claim(ctx, again)
			return err == nil
		})
		if h.Epoch <= g.Epoch {
			t.Errorf("master %d: epoch %d after %d", i, h.Epoch, g.Epoch)
		}
		a.Close()
		b.Close()
	}
}
