package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"
)

// cache mirrors one bucket of the store, decoded, so that nothing waits for the
// store to answer a question.
//
// Reads of the store overlap, and the one that ends last need not be the
// newest. Each gets a number when it starts and is applied only if none with a
// higher number has been: every change is followed by a read that starts after
// it, so the last applied has seen the last change.
type cache[T any] struct {
	store  Store
	bucket string
	decode func(key string, value []byte) (T, error)

	mu      sync.RWMutex // guards the following; not held across calls of the store
	entries map[string]T
	started uint64            // number of the latest read
	running int               // reads that have not ended
	applied map[string]uint64 // by key, while any read runs: number of the read its entry is from
}

func newCache[T any](store Store, bucket string, decode func(key string, value []byte) (T, error)) *cache[T] {
	return &cache[T]{store: store, bucket: bucket, decode: decode, entries: map[string]T{}, applied: map[string]uint64{}}
}

func (c *cache[T]) get(key string) (T, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok := c.entries[key]
	return v, ok
}

func (c *cache[T]) all() map[string]T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return maps.Clone(c.entries)
}

// has says whether an entry is of that kind.
func (c *cache[T]) has(kind func(T) bool) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, v := range c.entries {
		if kind(v) {
			return true
		}
	}
	return false
}

func (c *cache[T]) count() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}

// drop forgets an entry that is of no more use; the store has its own time to live.
func (c *cache[T]) drop(keys ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		delete(c.entries, key)
	}
}

// errOnlyRead ends an update that was made to read one record.
var errOnlyRead = errors.New("only read")

// reload reads one record anew.
func (c *cache[T]) reload(ctx context.Context, key string) error {
	number := c.begin()
	var text []byte
	err := c.store.Update(ctx, c.bucket, key, func(old []byte) ([]byte, time.Duration, error) {
		text = append([]byte(nil), old...)
		return nil, 0, errOnlyRead
	})
	if !errors.Is(err, errOnlyRead) {
		c.end(number, nil)
		return fmt.Errorf("%s record %q: %w", c.bucket, key, err)
	}
	if len(text) == 0 {
		c.end(number, map[string]*T{key: nil})
		return nil
	}
	v, err := c.decode(key, text)
	if err != nil {
		c.end(number, nil)
		return c.damaged(key, err)
	}
	c.end(number, map[string]*T{key: &v})
	return nil
}

// reloadAll reads the whole bucket anew. Damaged records are left out and reported; the others count.
func (c *cache[T]) reloadAll(ctx context.Context) error {
	number := c.begin()
	records, err := c.store.Load(ctx, c.bucket)
	if err != nil {
		c.end(number, nil)
		return fmt.Errorf("%s records: %w", c.bucket, err)
	}
	found := make(map[string]*T, len(records))
	for key := range c.all() {
		found[key] = nil
	}
	var damaged error
	for key, text := range records {
		v, err := c.decode(key, text)
		if err != nil {
			damaged = errors.Join(damaged, c.damaged(key, err))
			continue
		}
		found[key] = &v
	}
	c.end(number, found)
	return damaged
}

// damaged names the file where the records of this machine are kept, of which the store keeps the content before the last change.
func (c *cache[T]) damaged(key string, err error) error {
	return fmt.Errorf("%s record %q is damaged: %w; while no callbox runs, correct it in %[1]s.json of the data directory or copy %[1]s.json.bak over that", c.bucket, key, err)
}

func (c *cache[T]) begin() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started++
	c.running++
	return c.started
}

// end applies what a read has found; nil is a record that is not there.
func (c *cache[T]) end(number uint64, found map[string]*T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, v := range found {
		if c.applied[key] > number {
			continue
		}
		c.applied[key] = number
		if v == nil {
			delete(c.entries, key)
		} else {
			c.entries[key] = *v
		}
	}
	if c.running--; c.running == 0 {
		clear(c.applied)
	}
}
