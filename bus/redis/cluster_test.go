package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"callbox/bus/bustest"
)

// startRedisCluster starts three masters and waits until they are one cluster.
func startRedisCluster(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var servers []*server
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
		for _, other := range servers {
			if other != servers[i] {
				do(clients[i], "CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(other.port), busPort(other))
			}
		}
	}
	for _, c := range clients {
		bustest.Eventually(t, 30*time.Second, "the Redis Cluster to form", func() bool {
			info := do(c, "CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	url := "redis+cluster://"
	for i, s := range servers {
		if i > 0 {
			url += ","
		}
		url += s.address()
	}
	return url
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
	url := startRedisCluster(t)
	bustest.Run(t, func(t *testing.T) bustest.Cluster {
		c := newCluster(t, url, nil)
		c.flushAll(t)
		return c
	})
}
