package redis

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"
)

// touch keeps the keys of this node's peers and rooms, and those of the
// records, from expiring. Called by keepRecords.
func (b *Bus) touch() {
	now := time.Now()
	var cmds rueidis.Commands
	expire := func(key string, ttl time.Duration) {
		cmds = append(cmds, b.pub.B().Pexpire().Key(key).Milliseconds(ttl.Milliseconds()).Build())
	}
	b.mu.Lock()
	for peer, at := range b.claimed {
		if now.Sub(at) >= touchEvery {
			entry, _ := b.keys.peer(peer)
			expire(entry, entryTTL)
			b.claimed[peer] = now
		}
	}
	for room, m := range b.joined {
		if now.Sub(m.touched) >= touchEvery {
			expire(b.keys.room(room), entryTTL)
			m.touched = now
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
	var key string
	var there func() bool
	for peer, at := range b.claimed {
		key, _ = b.keys.peer(peer)
		there = func() bool { return b.claimed[peer].Equal(at) }
		break
	}
	for room, m := range b.joined {
		if there == nil || rand.IntN(2) == 0 {
			key = b.keys.room(room)
			there = func() bool { return b.joined[room] == m }
		}
		break
	}
	b.mu.Unlock()
	if there == nil {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, ioTimeout)
	defer cancel()
	found, err := b.pub.Do(ctx, b.pub.B().Pexpire().Key(key).Milliseconds(entryTTL.Milliseconds()).Build()).AsInt64()
	if err != nil || found == 1 {
		return
	}
	b.mu.Lock()
	still := there() // not released or left meanwhile
	b.mu.Unlock()
	if still {
		b.linkDown(errForgotten)
		b.linkUp()
	}
}
