package memory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"callbox/bus"
)

// entry is what the network knows of one peer id: its holder, or the state
// that was parked, or only who waits for it.
type entry struct {
	node        bus.NodeID // "": nobody
	proof       [sha256.Size]byte
	epoch       uint64
	parked      []byte
	parkedUntil time.Time // zero: not parked
	waiting     map[bus.NodeID]time.Time
}

// counts says whether the entry holds the id against others. Called with mu.
func (n *Network) counts(e *entry, now time.Time) bool {
	if !e.parkedUntil.IsZero() {
		return now.Before(e.parkedUntil)
	}
	return e.node != "" && n.live(e.node)
}

// sweep forgets entries that no longer count, when the map has doubled since
// the last time: lookups of ids that nobody has cannot make it grow for ever.
// Called with mu.
func (n *Network) sweep(now time.Time) {
	if len(n.peers) < n.sweepAt {
		return
	}
	for peer, e := range n.peers {
		for id, until := range e.waiting {
			if !now.Before(until) {
				delete(e.waiting, id)
			}
		}
		if len(e.waiting) == 0 && !n.counts(e, now) {
			delete(n.peers, peer)
		}
	}
	n.sweepAt = 2*len(n.peers) + 1024
}

// Claim makes this node the holder of a peer.
func (b *Bus) Claim(ctx context.Context, c bus.Claim) (bus.Grant, error) {
	if err := bus.CheckName("peer id", c.Peer); err != nil {
		return bus.Grant{}, err
	}
	proof := sha256.Sum256(c.Proof)
	now := time.Now()
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return bus.Grant{}, fmt.Errorf("claim %s: %w", c.Peer, err)
	}
	n.sweep(now)
	e := n.peers[c.Peer]
	if e == nil {
		e = &entry{}
		n.peers[c.Peer] = e
	}
	same := bytes.Equal(e.proof[:], proof[:])
	counts := n.counts(e, now)
	switch {
	case counts && !same:
		return bus.Grant{}, fmt.Errorf("claim %s: %w", c.Peer, bus.ErrTaken)
	case c.Held > 0 && e.epoch > c.Held:
		return bus.Grant{}, fmt.Errorf("claim %s: %w", c.Peer, bus.ErrFenced)
	}
	var g bus.Grant
	if same {
		g.Previous = e.node
		if counts {
			g.Parked = e.parked
		}
	}
	for id, until := range e.waiting {
		if id != b.self && now.Before(until) && n.live(id) {
			g.Waiting = append(g.Waiting, id)
		}
	}
	n.lastEpoch = max(n.lastEpoch, e.epoch, c.Held, uint64(now.UnixMicro())) + 1
	g.Epoch = n.lastEpoch
	*e = entry{node: b.self, proof: proof, epoch: g.Epoch}
	return g, nil
}

// Locate finds the holder of a peer.
func (b *Bus) Locate(ctx context.Context, peer string, wait time.Duration) (bus.NodeID, uint64, error) {
	if err := bus.CheckName("peer id", peer); err != nil {
		return "", 0, err
	}
	now := time.Now()
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return "", 0, fmt.Errorf("locate %s: %w", peer, err)
	}
	e := n.peers[peer]
	if e != nil && e.parkedUntil.IsZero() && n.counts(e, now) {
		return e.node, e.epoch, nil
	}
	if wait > 0 {
		n.sweep(now)
		if e = n.peers[peer]; e == nil {
			e = &entry{}
			n.peers[peer] = e
		}
		if e.waiting == nil {
			e.waiting = map[bus.NodeID]time.Time{}
		}
		if _, again := e.waiting[b.self]; again || len(e.waiting) < bus.MaxWaiting {
			e.waiting[b.self] = now.Add(min(wait, bus.MaxWait))
		}
	}
	return "", 0, fmt.Errorf("locate %s: %w", peer, bus.ErrNotFound)
}

// Release ends a claim of this node.
func (b *Bus) Release(ctx context.Context, peer string, epoch uint64) error {
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return fmt.Errorf("release %s: %w", peer, err)
	}
	if e := n.peers[peer]; e != nil && e.node == b.self && e.epoch == epoch && e.parkedUntil.IsZero() {
		delete(n.peers, peer)
	}
	return nil
}

// Park leaves a peer's state for its next claim.
func (b *Bus) Park(ctx context.Context, peer string, epoch uint64, state []byte, ttl time.Duration) error {
	if len(state) > bus.MaxParked {
		return fmt.Errorf("park %s: state of %d bytes: %w", peer, len(state), bus.ErrTooLarge)
	}
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return fmt.Errorf("park %s: %w", peer, err)
	}
	e := n.peers[peer]
	if e == nil || e.node != b.self || e.epoch != epoch || !e.parkedUntil.IsZero() {
		return fmt.Errorf("park %s: %w", peer, bus.ErrFenced)
	}
	e.parked = bytes.Clone(state)
	e.parkedUntil = time.Now().Add(ttl)
	return nil
}
