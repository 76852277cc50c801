package signal

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	drainSpread  = 10 * time.Second // at most so long between the first goaway's time and the last's
	goawayGrace  = 2 * time.Second  // more than goaway says, for those who need it
	closeWait    = time.Second      // for clients to answer the close frame
	drainLast    = 3 * time.Second  // so long before the deadline those go who do not come back
	drainPolling = 20 * time.Millisecond
)

// Drain asks every client to resume on another node and waits until no session
// is left here, or ctx ends. It takes no new connections from then on. With no other
// node to go to, it only announces the end.
func (h *Hub) Drain(ctx context.Context) error {
	others := false
	for _, n := range h.bus.Nodes() {
		others = others || n.ID != h.self && !n.Draining
	}
	spread := drainSpread
	if end, ok := ctx.Deadline(); ok {
		spread = min(spread, time.Until(end)/3)
	}
	if !others {
		spread = 0
	}
	h.mu.Lock()
	h.closed = true
	conns := make([]*conn, 0, len(h.conns))
	for c := range h.conns {
		conns = append(conns, c)
	}
	h.mu.Unlock()
	for _, c := range conns {
		s := c.s.Load()
		if s == nil {
			continue
		}
		after := time.Duration(0)
		if spread > 0 {
			after = rand.N(spread)
		}
		if end, ok := ctx.Deadline(); ok && !c.proto.returns() {
			after = max(0, time.Until(end)-goawayGrace-drainLast) // its call ends with the connection
		}
		if others {
			c.leaveAt.Store(time.Now().Add(after + goawayGrace).UnixMilli())
		}
		c.control(s, &event{kind: evGoaway, number: uint64(after / time.Millisecond), reason: "drain"})
	}
	if !others {
		return nil
	}
	t := time.NewTicker(drainPolling)
	defer t.Stop()
	for {
		h.mu.RLock()
		left := len(h.sessions)
		h.mu.RUnlock()
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.stop:
			return nil
		case <-t.C:
		}
	}
}

// Close closes every connection, leaves the sessions to other nodes and waits for all
// goroutines. The bus must be open still.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.life.Lock()
	stopped := h.stopped
	h.life.Unlock()
	if stopped {
		h.wg.Wait()
		return nil
	}
	h.eachConn(func(c *conn) { c.shutdown(closeAway, "this node is going away") })
	h.awaitConns(closeWait)
	h.eachConn(func(c *conn) { _ = c.Conn.Close() })
	h.parkAll()
	h.cancel()
	h.life.Lock()
	if !h.stopped {
		h.stopped = true
		close(h.stop)
	}
	h.life.Unlock()
	h.eachConn(func(c *conn) { _ = c.Conn.Close() }) // who came in meanwhile
	h.wg.Wait()
	return nil
}

func (h *Hub) eachConn(f func(*conn)) {
	h.mu.RLock()
	conns := make([]*conn, 0, len(h.conns))
	for c := range h.conns {
		if c.upgraded.Load() {
			conns = append(conns, c)
		}
	}
	h.mu.RUnlock()
	for _, c := range conns {
		f(c)
	}
}

// awaitConns waits for the readers to end.
func (h *Hub) awaitConns(limit time.Duration) {
	end := time.NewTimer(limit)
	defer end.Stop()
	t := time.NewTicker(drainPolling)
	defer t.Stop()
	for {
		h.mu.RLock()
		left := len(h.conns)
		h.mu.RUnlock()
		if left == 0 {
			return
		}
		select {
		case <-t.C:
		case <-end.C:
			return
		}
	}
}

// parkAll leaves every session to the bus.
func (h *Hub) parkAll() {
	ctx, cancel := h.call()
	defer cancel()
	h.mu.RLock()
	all := make([]*session, 0, len(h.sessions))
	for _, s := range h.sessions {
		if s.proto.acknowledged() { // others end with their connections
			all = append(all, s)
		}
	}
	h.mu.RUnlock()
	var wg sync.WaitGroup
	turn := make(chan struct{}, backgroundCalls)
	for _, s := range all {
		turn <- struct{}{}
		wg.Go(func() {
			h.park(ctx, s)
			<-turn
		})
	}
	wg.Wait()
}
