package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"callbox/bus"
)

const (
	maxNotices = 4096             // changes waiting to be fetched; past it everything is compared
	sweepEvery = 30 * time.Second // keys are kept alive, what is over is dropped
	dropAfter  = time.Hour        // a node away for longer could bring the version before back
	touchEvery = entryTTL / 3
)

// recordState is what the subscription tells keepRecords.
type recordState struct {
	signal chan struct{} // one token

	mu       sync.Mutex
	notices  []notice
	compare  bool   // notices were missed
	revision string // of Redis, as far as the store is up to it
}

type notice struct{ before, revision, writer, bucket, key string }

func (r *recordState) init() { r.signal = make(chan struct{}, 1) }

func (r *recordState) wake() {
	r.mu.Lock()
	r.compare = true
	r.mu.Unlock()
	r.token()
}

func (r *recordState) token() {
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

// notify is called by the reader of the subscription.
func (r *recordState) notify(message string) {
	p := strings.SplitN(message, "\n", 5)
	r.mu.Lock()
	if len(p) != 5 || len(r.notices) >= maxNotices {
		r.compare = true
	} else {
		r.notices = append(r.notices, notice{p[0], p[1], p[2], p[3], p[4]})
	}
	r.mu.Unlock()
	r.token()
}

func (b *Bus) usable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == closed:
		return bus.ErrClosed
	case b.state == started && !b.up.Load():
		return bus.ErrNoLink
	}
	return nil
}

// Update replaces a record everywhere.
func (b *Bus) Update(ctx context.Context, bucket, key string, f func(old []byte) ([]byte, time.Duration, error)) error {
	if err := bus.CheckBucket(bucket); err != nil {
		return err
	}
	if err := b.usable(); err != nil {
		return fmt.Errorf("record %s/%s: %w", bucket, key, err)
	}
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for range 200 {
		stored, err := b.fetch(call, bucket, key)
		if err != nil {
			return err
		}
		old := stored
		if own, _ := b.store.Get(bucket, key); own.Version > old.Version {
			old = own
		}
		next, err := bus.Compute(bucket, key, old, b.redisNow(), f)
		if err != nil {
			return err
		}
		done, err := b.put(call, bucket, key, next, strconv.FormatUint(stored.Version, 10))
		if err != nil {
			return fmt.Errorf("record %s/%s: %w", bucket, key, err)
		}
		if done {
			// It has happened; it must reach the disk whatever the caller does.
			if _, err := b.store.Merge(context.WithoutCancel(ctx), bucket, map[string]bus.Record{key: next}); err != nil {
				return err
			}
			b.queue.PutChanged(bucket, key)
			return nil
		}
		wait := time.NewTimer(jitter(4 * time.Millisecond))
		select {
		case <-wait.C:
		case <-call.Done():
			wait.Stop()
			return fmt.Errorf("record %s/%s: %w", bucket, key, call.Err())
		}
	}
	return fmt.Errorf("record %s/%s: %w", bucket, key, bus.ErrConflict)
}

// fetch returns what Redis has; the zero Record for nothing.
func (b *Bus) fetch(ctx context.Context, bucket, key string) (bus.Record, error) {
	s, err := b.pub.Do(ctx, b.pub.B().Hget().Key(b.keys.bucket(bucket)).Field(key).Build()).ToString()
	switch {
	case rueidis.IsRedisNil(err):
		return bus.Record{}, nil
	case err != nil:
		return bus.Record{}, fmt.Errorf("record %s/%s: %w", bucket, key, noLink(ctx, err))
	}
	return b.decodeRecord(bucket, key, s)
}

// put stores a record in Redis if the version there is the expected one, or
// "older" than its own.
func (b *Bus) put(ctx context.Context, bucket, key string, r bus.Record, expected string) (bool, error) {
	answer, err := b.scripts.put.Exec(ctx, b.pub,
		[]string{b.keys.bucket(bucket), b.keys.revision(), b.keys.buckets()},
		[]string{
			bucket, key, b.encodeRecord(bucket, key, r), strconv.FormatUint(r.Version, 10), expected,
			strconv.Itoa(bus.MaxRecords), millis(recordTTL), b.keys.recordsChannel(), string(b.self),
		}).AsStrSlice()
	switch {
	case err != nil:
		return false, noLink(ctx, err)
	case len(answer) == 1 && answer[0] == "E":
		return false, bus.ErrFull
	}
	return len(answer) == 1 && answer[0] == "S", nil
}

// Load returns the live records of a bucket: those in Redis and on disk, the
// newer of each; without Redis, those on disk.
func (b *Bus) Load(ctx context.Context, bucket string) (map[string][]byte, error) {
	if err := bus.CheckBucket(bucket); err != nil {
		return nil, err
	}
	err := b.usable()
	if err == nil {
		call, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		_, err = b.adoptBucket(call, bucket)
	}
	switch {
	case errors.Is(err, bus.ErrNoLink):
		b.log.Debug("records taken from disk", "bucket", bucket, "err", err)
	case err != nil:
		return nil, err
	}
	return b.store.Load(ctx, bucket)
}

// adoptBucket brings the store up to Redis, and returns what Redis has.
func (b *Bus) adoptBucket(ctx context.Context, bucket string) (map[string]bus.Record, error) {
	raw, err := b.pub.Do(ctx, b.pub.B().Hgetall().Key(b.keys.bucket(bucket)).Build()).AsStrMap()
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, noLink(ctx, err))
	}
	records := make(map[string]bus.Record, len(raw))
	for key, s := range raw {
		r, err := b.decodeRecord(bucket, key, s)
		if err != nil {
			return nil, err
		}
		records[key] = r
	}
	newer, err := b.store.Merge(ctx, bucket, records)
	if err != nil {
		return nil, err
	}
	for _, key := range newer {
		b.queue.PutChanged(bucket, key)
	}
	return records, nil
}

// syncRecords brings the store and Redis to the newer of both, deletions
// included.
func (b *Bus) syncRecords(ctx context.Context) error {
	revision, err := b.revision(ctx)
	if err != nil {
		return err
	}
	names, err := b.pub.Do(ctx, b.pub.B().Smembers().Key(b.keys.buckets()).Build()).AsStrSlice()
	if err != nil {
		return noLink(ctx, err)
	}
	names = append(names, b.store.Buckets()...)
	slices.Sort(names)
	for _, bucket := range slices.Compact(names) {
		there, err := b.adoptBucket(ctx, bucket)
		if err != nil {
			return err
		}
		now := b.redisNow()
		own := b.store.All(bucket)
		for _, key := range slices.Sorted(maps.Keys(own)) {
			r := own[key]
			if r.Version <= there[key].Version || !r.Expires.IsZero() && !now.Before(r.Expires) {
				continue
			}
			if _, err := b.put(ctx, bucket, key, r, "older"); err != nil {
				return fmt.Errorf("put record %s/%s back: %w", bucket, key, err)
			}
		}
	}
	b.records.mu.Lock()
	b.records.revision = revision
	b.records.mu.Unlock()
	return nil
}

func (b *Bus) revision(ctx context.Context) (string, error) {
	s, err := b.pub.Do(ctx, b.pub.B().Get().Key(b.keys.revision()).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "0", nil
	}
	return s, noLink(ctx, err)
}

// keepRecords follows the changes of others, compares everything when some
// were missed, and sweeps. Started by Start, ended by Close.
func (b *Bus) keepRecords() {
	defer b.wg.Done()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-b.records.signal:
		case <-look.C:
			if b.up.Load() {
				b.checkRevision()
				b.sample()
			}
		case <-sweep.C:
			if b.up.Load() {
				b.sweepRecords()
				b.touch()
			}
			continue
		}
		if b.up.Load() {
			b.follow()
		}
	}
}

// checkRevision notices changes that no notice told of, such as their loss.
func (b *Bus) checkRevision() {
	ctx, cancel := context.WithTimeout(b.ctx, ioTimeout)
	defer cancel()
	revision, err := b.revision(ctx)
	if err != nil {
		return // keeper is the one who tells of a lost link
	}
	r := &b.records
	r.mu.Lock()
	defer r.mu.Unlock()
	if revision != r.revision && len(r.notices) == 0 {
		r.compare = true
	}
}

// follow works off the notices.
func (b *Bus) follow() {
	r := &b.records
	r.mu.Lock()
	notices, compare := r.notices, r.compare
	r.notices, r.compare = nil, false
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(b.ctx, callTime)
	defer cancel()
	for _, n := range notices {
		if n.writer != string(b.self) {
			if err := b.adopt(ctx, n.bucket, n.key); err != nil {
				b.log.Warn("change of a record not followed, comparing all", "bucket", n.bucket, "err", err)
				compare = true
			}
		}
		r.mu.Lock()
		if r.revision == n.before {
			r.revision = n.revision
		}
		r.mu.Unlock()
	}
	if !compare {
		return
	}
	if err := b.syncRecords(ctx); err != nil && b.ctx.Err() == nil {
		b.log.Warn("records not compared with Redis, trying again", "err", err)
		r.mu.Lock()
		r.compare = true // at the next look
		r.mu.Unlock()
	}
}

// adopt takes one change over, and tells of it when it is on disk.
func (b *Bus) adopt(ctx context.Context, bucket, key string) error {
	if err := bus.CheckBucket(bucket); err != nil {
		return err
	}
	rec, err := b.fetch(ctx, bucket, key)
	if err != nil {
		return err
	}
	if _, err := b.store.Merge(ctx, bucket, map[string]bus.Record{key: rec}); err != nil {
		return err
	}
	b.queue.PutChanged(bucket, key)
	return nil
}

// sweepRecords drops records from Redis whose time has long been over; of all
// nodes, about one does it each time.
func (b *Bus) sweepRecords() {
	if rand.IntN(len(b.live())+1) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, callTime)
	defer cancel()
	if err := b.dropRecords(ctx, b.redisNow().Add(-dropAfter)); err != nil {
		b.log.Debug("records past their time not dropped from Redis, trying again", "err", err)
	}
}

// dropRecords drops the records that were over before that time.
func (b *Bus) dropRecords(ctx context.Context, before time.Time) error {
	for _, bucket := range b.store.Buckets() {
		raw, err := b.pub.Do(ctx, b.pub.B().Hgetall().Key(b.keys.bucket(bucket)).Build()).AsStrMap()
		if err != nil {
			return noLink(ctx, err)
		}
		for key, s := range raw {
			version, rest, _ := strings.Cut(s, "|")
			expires, _, _ := strings.Cut(rest, "|")
			ms, err := strconv.ParseInt(expires, 10, 64)
			if err != nil || ms == 0 || !time.UnixMilli(ms).Before(before) {
				continue
			}
			// Only this version: the key may have been used again meanwhile.
			if err := b.scripts.drop.Exec(ctx, b.pub, []string{b.keys.bucket(bucket)}, []string{key, version}).Error(); err != nil {
				return noLink(ctx, err)
			}
		}
	}
	return nil
}
