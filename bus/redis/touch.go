package redis

import (
	"context"
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
