package redis

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/redis/rueidis"
)

// holding is what this node has of one peer in Redis, whose keys must not
// expire.
type holding struct {
	epoch   uint64 // of the claim; 0: there is none
	rooms   []membership
	touched time.Time
}

type membership struct {
	room  string
	epoch uint64
}

// keysOf are one at least. Called with mu.
func (b *Bus) keysOf(peer string, h *holding) (keys []string) {
	if h.epoch > 0 {
		entry, _ := b.keys.peer(peer)
		keys = append(keys, entry)
	}
	for i := range h.rooms {
		keys = append(keys, b.keys.room(h.rooms[i].room))
	}
	return keys
}

// holds begins anew: who has a new claim joins its rooms again.
func (b *Bus) holds(peer string, epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[peer] = &holding{epoch: epoch, touched: time.Now()}
}

// letGo forgets a peer and its memberships; of a newer claim it knows nothing.
func (b *Bus) letGo(peer string, epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.held[peer]; h != nil && h.epoch <= epoch {
		delete(b.held, peer)
	}
}

func (b *Bus) entered(peer, room string, epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.held[peer]
	if h == nil {
		h = &holding{touched: time.Now()}
		b.held[peer] = h
	}
	h.rooms = slices.DeleteFunc(h.rooms, func(m membership) bool { return m.room == room })
	h.rooms = append(h.rooms, membership{room, epoch})
}

func (b *Bus) left(peer, room string, epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.held[peer]
	if h == nil {
		return
	}
	h.rooms = slices.DeleteFunc(h.rooms, func(m membership) bool { return m.room == room && m.epoch <= epoch })
	if len(h.rooms) == 0 && h.epoch == 0 {
		delete(b.held, peer)
	}
}

// touch keeps the keys of this node's peers and rooms, and those of the
// records, from expiring. Called by keepRecords.
func (b *Bus) touch() {
	now := time.Now()
	var cmds rueidis.Commands
	expire := func(key string, ttl time.Duration) {
		cmds = append(cmds, b.pub.B().Pexpire().Key(key).Milliseconds(ttl.Milliseconds()).Build())
	}
	b.mu.Lock()
	for peer, h := range b.held {
		if now.Sub(h.touched) < touchEvery {
			continue
		}
		h.touched = now
		for _, key := range b.keysOf(peer, h) {
			expire(key, entryTTL)
		}
	}
	b.mu.Unlock()
	for _, bucket := range b.store.Buckets() {
		expire(b.keys.bucket(bucket), recordTTL)
	}
	expire(b.keys.revision(), recordTTL)
	expire(b.keys.buckets(), recordTTL)
	ctx, cancel := context.WithTimeout(b.ctx, callTime)
	defer cancel()
	for len(cmds) > 0 {
		n := min(len(cmds), 256)
		for _, answer := range b.pub.DoMulti(ctx, cmds[:n]...) {
			if err := answer.Error(); err != nil {
				b.log.Debug("keys not kept from expiring, trying again", "err", noLink(ctx, err))
				return
			}
		}
		cmds = cmds[n:]
	}
}

// sample looks whether a random one of the entries that this node has in Redis
// is still there: one shard of a Redis Cluster may come back empty, or Redis
// may evict keys, without the list of nodes being lost. Called by keepRecords
// every second.
func (b *Bus) sample() {
	b.mu.Lock()
	var peer, key string
	var asked *holding
	for p, h := range b.held { // in no order
		keys := b.keysOf(p, h)
		peer, key, asked = p, keys[rand.IntN(len(keys))], h
		break
	}
	b.mu.Unlock()
	if key == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, ioTimeout)
	defer cancel()
	found, err := b.pub.Do(ctx, b.pub.B().Pexpire().Key(key).Milliseconds(entryTTL.Milliseconds()).Build()).AsInt64()
	if err != nil || found == 1 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[peer] == asked && slices.Contains(b.keysOf(peer, asked), key) { // not claimed anew, released or left meanwhile
		b.missed = true
		b.kickKeeper()
	}
}
