package memory

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"callbox/bus"
	"callbox/bus/internal/events"
)

// Bus is one node of a Network.
type Bus struct {
	net      *Network
	self     bus.NodeID
	store    *bus.Store
	log      *slog.Logger
	queue    events.Queue
	counters bus.Counters
	handler  bus.Handler // set by Start, before run

	wg   sync.WaitGroup // run; started by Start, awaited by Close
	done chan struct{}
	once sync.Once // closes done

	// guarded by net.mu
	info    bus.NodeInfo
	started bool
	closed  bool
	cut     bool
	expired bool
}

var _ bus.Bus = (*Bus)(nil)

// Self is this node's id.
func (b *Bus) Self() bus.NodeID { return b.self }

// Start makes the node visible and runs its handler.
func (b *Bus) Start(h bus.Handler) error {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	if b.started || b.closed {
		return fmt.Errorf("start node %s: %w", b.self, bus.ErrClosed)
	}
	b.started = true
	b.handler = h
	b.net.nodes[b.self] = b
	b.net.tellNodes()
	b.wg.Add(1)
	go b.run()
	return nil
}

// run tells the handler what is queued, one thing at a time.
func (b *Bus) run() {
	defer b.wg.Done()
	var leaseEnd <-chan time.Time
	for {
		select {
		case <-b.done:
			return
		case <-leaseEnd:
			leaseEnd = nil
			b.net.expire(b)
			continue
		case <-b.queue.Wake:
		}
		list, nodes, until := b.queue.Take()
		leaseEnd = nil
		if !until.IsZero() {
			leaseEnd = time.After(time.Until(until))
		}
		for i, e := range list {
			select {
			case <-b.done:
				// Killed or closed in the middle: the rest goes back, as it
				// would have from the queue.
				b.net.handBack(b.self, list[i:])
				return
			default:
			}
			e.Tell(b.handler, &b.counters, nodes)
		}
	}
}

// Close withdraws the node and waits.
func (b *Bus) Close() error {
	b.end()
	b.wg.Wait()
	return nil
}

// end takes the node out of the network and hands back what it has not
// received.
func (b *Bus) end() {
	n := b.net
	n.mu.Lock()
	wasLive := n.live(b.self)
	b.closed = true
	delete(n.nodes, b.self)
	delete(n.opened, b.self)
	if wasLive {
		n.tellNodes()
	}
	n.mu.Unlock()
	b.once.Do(func() { close(b.done) })
	n.handBack(b.self, b.queue.End())
}

// Send queues a message for another node, or for this one.
func (b *Bus) Send(to bus.NodeID, data []byte) error {
	if len(data) > bus.MaxMessage {
		b.counters.RefusedLarge.Add(1)
		return fmt.Errorf("message of %d bytes: %w", len(data), bus.ErrTooLarge)
	}
	n := b.net
	n.mu.Lock()
	self, dest, cut := n.nodes[b.self], n.nodes[to], b.cut
	if dest != nil && dest.expired && dest != b {
		dest = nil
	}
	n.mu.Unlock()
	if self == nil {
		b.counters.Closed.Add(1)
		return bus.ErrClosed
	}
	var err error
	switch {
	case cut && dest != b:
		b.queue.PutLost(to, data, bus.ErrNoLink)
	case dest == nil:
		err = bus.ErrNodeGone
	default:
		err = dest.queue.PutMessage(b.self, data)
	}
	switch err {
	case nil:
		b.counters.Published.Add(1)
		return nil
	case bus.ErrNodeGone:
		b.counters.RefusedGone.Add(1)
	case bus.ErrBusy:
		b.counters.RefusedBusy.Add(1)
	}
	return fmt.Errorf("send to %s: %w", to, err)
}

// ready says whether the node can use what is shared. Called with net.mu.
func (b *Bus) ready(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case b.net.nodes[b.self] != b:
		return bus.ErrClosed
	case b.cut:
		return bus.ErrNoLink
	}
	return nil
}

// Announce replaces what others see of this node.
func (b *Bus) Announce(ctx context.Context, info bus.NodeInfo) error {
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	info.ID, info.Name, info.Started = b.self, b.info.Name, b.info.Started
	if info.Protocol == 0 {
		info.Protocol = bus.Protocol
	}
	drains := info.Draining != b.info.Draining
	b.info = info
	if drains {
		n.tellNodes()
	}
	return nil
}

// Nodes returns the live nodes.
func (b *Bus) Nodes() []bus.NodeInfo {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	return b.net.list()
}

// Stats returns the node's counters.
func (b *Bus) Stats() bus.Stats {
	s := b.counters.Stats()
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	s.LinkUp = b.started && !b.closed && !b.cut
	s.Nodes = len(b.net.list())
	for _, e := range b.net.peers {
		if e.node == b.self && e.parkedUntil.IsZero() {
			s.Peers++
		}
	}
	return s
}
