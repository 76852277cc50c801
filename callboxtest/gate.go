package callboxtest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// connections are those of a node, to be broken all at once.
type connections struct {
	mu   sync.Mutex
	all  map[net.Conn]struct{} // guarded by mu
	over bool                  // guarded by mu: what comes now is closed
}

func (c *connections) add(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		_ = conn.Close()
		return
	}
	if c.all == nil {
		c.all = make(map[net.Conn]struct{})
	}
	c.all[conn] = struct{}{}
}

func (c *connections) drop(conn net.Conn) {
	_ = conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, conn)
}

func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for conn := range c.all {
		_ = conn.Close()
	}
	c.all = nil
}

// gate passes a node's connections on to Redis until it is closed: a node that is to die must not take its leave there.
type gate struct {
	listener net.Listener
	target   string
	conns    connections
	wg       sync.WaitGroup // the accept loop, and both directions of each connection
}

func newGate(t testing.TB, target string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	g := &gate{listener: l, target: target}
	g.wg.Go(g.accept)
	t.Cleanup(g.close)
	return g
}

func (g *gate) addr() string { return g.listener.Addr().String() }

// close breaks everything and waits. It may be called more than once.
func (g *gate) close() {
	_ = g.listener.Close()
	g.conns.cut()
	g.wg.Wait()
}

func (g *gate) accept() {
	for {
		node, err := g.listener.Accept()
		if err != nil {
			return
		}
		redis, err := net.Dial("tcp", g.target)
		if err != nil {
			_ = node.Close()
			continue
		}
		g.conns.add(node)
		g.conns.add(redis)
		g.wg.Go(func() { g.pass(redis, node) })
		g.wg.Go(func() { g.pass(node, redis) })
	}
}

// pass copies one direction; its end is that of both.
func (g *gate) pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	g.conns.drop(to)
	g.conns.drop(from)
}
