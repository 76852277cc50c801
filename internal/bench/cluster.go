package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/golang-jwt/jwt/v5"
)

// cluster is real nodes over a real Redis, as a person would start them.
type cluster struct {
	t     testing.TB
	redis *testkit.RedisServer
	nodes []*testkit.Server
	keyID string
	key   []byte // of an API key; signs room tokens
}

func startCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, redis: testkit.Redis(t)}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("what the nodes of this measurement share\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf("node%d", i+1)
		c.nodes = append(c.nodes, testkit.Serve(t, testkit.Options{
			Name: name, Plain: true, LogLevel: "warn",
			Args: []string{
				"--bus", c.redis.URL(), "--node-name", name, "--turn-secret-file", secret,
				"--drain-timeout", "1s", "--message-rate", "1000000", "--message-bytes", "1GB",
			},
		}))
	}
	out := c.nodes[0].MustCLI("", "key", "add", "bench")
	for field := range strings.FieldsSeq(out) {
		if id, rest, ok := strings.Cut(field, "."); ok && len(id) >= 4 && len(rest) >= 20 {
			c.keyID, c.key = id, []byte(rest)
		}
	}
	if c.keyID == "" {
		t.Fatalf("callbox key add printed no ID.SECRET: %q", out)
	}
	for _, node := range c.nodes { // a key is known to the others a moment later
		testkit.Eventually(t, 10*time.Second, node.Name+" knows the key", func() error {
			p := c.peer("first")
			if err := p.connect(t.Context(), node.Addr()); err != nil {
				return err
			}
			p.ws.close()
			return nil
		})
	}
	return c
}

// peer makes a client for a room; it is not connected.
func (c *cluster) peer(room string) *peer {
	c.t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "guest", "room": room, "exp": time.Now().Add(2 * time.Hour).Unix(),
	})
	token.Header["kid"] = c.keyID
	text, err := token.SignedString(c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return &peer{room: room, token: text}
}

// connectAll brings peers to the nodes in turn, some at a time, and serves them.
func (c *cluster) connectAll(peers []*peer, addr func(i int) string) {
	c.t.Helper()
	if err := connectAll(c.t.Context(), peers, addr); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		for _, p := range peers {
			p.stop()
		}
	})
}

func connectAll(ctx context.Context, peers []*peer, addr func(i int) string) error {
	const atOnce = 64
	next := make(chan int)
	errs := make([]error, atOnce)
	var wg sync.WaitGroup
	for w := range atOnce {
		wg.Go(func() {
			for i := range next {
				if errs[w] != nil {
					continue
				}
				if err := peers[i].connect(ctx, addr(i)); err != nil {
					errs[w] = err
					continue
				}
				peers[i].serve()
			}
		})
	}
	for i := range peers {
		next <- i
	}
	close(next)
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		for _, p := range peers {
			if p.done != nil {
				p.stop()
			}
		}
		return errs[i]
	}
	return nil
}

// pairs returns n pairs, each in a room of its own, and their peers one after another.
func (c *cluster) pairs(n int, prefix string) (left, right, all []*peer) {
	c.t.Helper()
	for i := range n {
		room := fmt.Sprintf("%s%d", prefix, i)
		l, r := c.peer(room), c.peer(room)
		left, right, all = append(left, l), append(right, r), append(all, l, r)
	}
	return left, right, all
}

// cpu returns what the nodes and Redis have used so far.
func (c *cluster) cpu() (nodes, redis time.Duration) {
	c.t.Helper()
	for _, node := range c.nodes {
		if node.Ended() {
			continue
		}
		used, err := cpuOf(node.Pid())
		if err != nil {
			c.t.Fatal(err)
		}
		nodes += used
	}
	redis, err := cpuOf(c.redis.Pid())
	if err != nil {
		c.t.Fatal(err)
	}
	return nodes, redis
}

// healthy fails when a peer has had an error.
func (c *cluster) healthy(peers []*peer) {
	c.t.Helper()
	for _, p := range peers {
		if err := p.err(); err != nil {
			c.t.Fatalf("peer %s: %v", p.id, err)
		}
	}
}
