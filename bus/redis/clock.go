package redis

import (
	"context"
	"strconv"
	"time"
)

// redisNow is the time by Redis' clock.
func (b *Bus) redisNow() time.Time { return time.Now().Add(time.Duration(b.offset.Load())) }

// setClock asks Redis for the time, before anything that is shared has one.
func (b *Bus) setClock(ctx context.Context) error {
	asked := time.Now()
	parts, err := b.pub.Do(ctx, b.pub.B().Time().Build()).AsStrSlice()
	if err != nil {
		return err
	}
	now, err := redisTime(parts)
	if err != nil {
		return err
	}
	b.followClock(now, asked)
	return nil
}

// followClock takes Redis' clock over, as told in answer to a question asked then.
func (b *Bus) followClock(redis, asked time.Time) {
	b.offset.Store(int64(redis.Sub(asked.Add(time.Since(asked) / 2))))
}

// number takes note of an epoch, a version or Redis' time. The next that Redis gives out for this node is higher, even if
// everything is lost there and its clock goes back, as when another server takes over.
func (b *Bus) number(n uint64) {
	for {
		latest := b.latest.Load()
		if n <= latest || b.latest.CompareAndSwap(latest, n) {
			return
		}
	}
}

func (b *Bus) latestNumber() string { return strconv.FormatUint(b.latest.Load(), 10) }

// until is how long an answer of Redis is waited for, in microseconds of its clock.
func (b *Bus) until(ctx context.Context) string {
	end := time.Now().Add(ioTimeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	return strconv.FormatInt(end.Add(time.Duration(b.offset.Load())).UnixMicro(), 10)
}
