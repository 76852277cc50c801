package memory

import (
	"context"
	"fmt"
	"time"

	"callbox/bus"
)

// Update replaces a record on every node.
func (b *Bus) Update(ctx context.Context, bucket, key string, f func(old []byte) ([]byte, time.Duration, error)) error {
	for range 100 {
		if err := b.recordsReady(); err != nil {
			return fmt.Errorf("record %s/%s: %w", bucket, key, err)
		}
		old, _ := b.net.records.Get(bucket, key)
		next, err := bus.Compute(bucket, key, old, time.Now(), f)
		if err != nil {
			return err
		}
		ok, err := b.swap(ctx, bucket, key, old.Version, next)
		if ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("record %s/%s: %w", bucket, key, bus.ErrConflict)
}

func (b *Bus) recordsReady() error {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	switch {
	case b.closed:
		return bus.ErrClosed
	case b.cut:
		return bus.ErrNoLink
	}
	return nil
}

// swap makes next durable here, then visible to all, if version still is the
// record's.
func (b *Bus) swap(ctx context.Context, bucket, key string, version uint64, next bus.Record) (bool, error) {
	n := b.net
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if now, _ := n.records.Get(bucket, key); now.Version != version {
		return false, nil
	}
	one := map[string]bus.Record{key: next}
	if _, err := b.store.Merge(ctx, bucket, one); err != nil {
		return false, err
	}
	// From here on it has happened: the context no longer counts.
	if _, err := n.records.Merge(context.WithoutCancel(ctx), bucket, one); err != nil {
		return false, err
	}
	for _, o := range n.openedNodes() {
		if o == b {
			b.queue.PutChanged(bucket, key)
		} else {
			o.adopt(bucket, one)
		}
	}
	return true, nil
}

// adopt takes over what another node has changed.
func (b *Bus) adopt(bucket string, records map[string]bus.Record) {
	newer, err := b.store.Merge(context.Background(), bucket, records)
	if err != nil {
		b.log.Error("record not written to disk", "bucket", bucket, "node", string(b.self), "err", err)
	}
	for _, key := range newer {
		b.queue.PutChanged(bucket, key)
	}
}

// Load returns the live records of a bucket.
func (b *Bus) Load(ctx context.Context, bucket string) (map[string][]byte, error) {
	return b.net.records.Load(ctx, bucket)
}
