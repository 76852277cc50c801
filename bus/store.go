package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// Limits of the record store.
const (
	MaxValue   = 64 << 10 // bytes in one record's value
	MaxRecords = 50_000   // records in one bucket, tombstones included
)

// ErrFull: the bucket holds MaxRecords records.
var ErrFull = errors.New("bus: too many records in the bucket")

// ErrDamaged: a file of the store is not what the store wrote.
var ErrDamaged = errors.New("bus: damaged records file")

// tombstoneLife is how long a deletion is remembered: a node that was away for
// longer could bring a deleted record back.
const tombstoneLife = 400 * 24 * time.Hour

// Record is one version of a record, or of its deletion.
type Record struct {
	Version uint64
	Expires time.Time // zero: never. For a deletion: when it may be forgotten
	Deleted bool
	Value   []byte
}

// Live says whether the record counts at that time.
func (r Record) Live(now time.Time) bool {
	return r.Version > 0 && !r.Deleted && (r.Expires.IsZero() || now.Before(r.Expires))
}

// Next makes the record that follows r. A nil value is a deletion. The version is above r's
// and, across a loss of all history, above what any node is likely to have
// had: it follows the clock in microseconds.
func (r Record) Next(value []byte, ttl time.Duration, now time.Time) Record {
	n := Record{Version: max(r.Version, uint64(max(now.UnixMicro(), 0))) + 1, Value: value}
	switch {
	case value == nil:
		n.Deleted = true
		n.Expires = now.Add(tombstoneLife)
	case ttl > 0:
		// Files and Redis carry milliseconds.
		n.Expires = now.Add(ttl).Truncate(time.Millisecond)
	}
	return n
}

// Store is the durable side of Records on one node's disk: one JSON file a bucket. It
// satisfies Records by itself, for a process that is no node of anything.
type Store struct {
	dir   string           // empty: nothing on disk
	clock func() time.Time // when records end; this machine's unless UseClock says otherwise

	// turn is held by the one goroutine that writes; a channel, because it is
	// held across file I/O and waiting for it ends with the context.
	turn chan struct{}

	mu      sync.RWMutex
	buckets map[string]map[string]Record // maps are replaced, never changed
}

// OpenStore reads every bucket file (*.json) in dir, which must exist; dir ""
// keeps records in memory only. A file that is damaged is an error wrapping
// ErrDamaged that says where and what to do; it is never overwritten.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: dir, clock: time.Now, turn: make(chan struct{}, 1), buckets: map[string]map[string]Record{}}
	if dir == "" {
		return s, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("record store: %w", err)
	}
	for _, e := range entries {
		bucket, ok := bucketOfFile(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		records, err := readBucket(dir, bucket)
		if err != nil {
			return nil, err
		}
		s.buckets[bucket] = records
	}
	return s, nil
}

// UseClock has records end by another clock than this machine's, the one that all nodes go by. Called before the store is used.
func (s *Store) UseClock(clock func() time.Time) { s.clock = clock }

// Buckets returns the names of the buckets that have records or tombstones.
func (s *Store) Buckets() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.buckets))
}

// Get returns one record as it is stored: it may be a deletion or expired.
func (s *Store) Get(bucket, key string) (Record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.buckets[bucket][key]
	return r, ok
}

// All returns the records of a bucket as they are stored, deletions included.
// The map is not to be changed.
func (s *Store) All(bucket string) map[string]Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.buckets[bucket]
}

// Load returns the live records of a bucket.
func (s *Store) Load(ctx context.Context, bucket string) (map[string][]byte, error) {
	if err := CheckBucket(bucket); err != nil {
		return nil, err
	}
	now := s.clock()
	all := s.All(bucket)
	live := make(map[string][]byte, len(all))
	for k, r := range all {
		if r.Live(now) {
			live[k] = slices.Clone(r.Value)
		}
	}
	return live, ctx.Err()
}

// Update replaces one record; see Records.
func (s *Store) Update(ctx context.Context, bucket, key string, f func(old []byte) ([]byte, time.Duration, error)) error {
	for range 100 {
		old, _ := s.Get(bucket, key)
		next, err := Compute(bucket, key, old, s.clock(), f)
		if err != nil {
			return err
		}
		ok, err := s.Swap(ctx, bucket, key, old.Version, next)
		if ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("record %s/%s: %w", bucket, key, ErrConflict)
}

// Compute applies an update function to the present record (zero: none) and
// checks names and sizes. Implementations of Records share it.
func Compute(bucket, key string, old Record, now time.Time, f func(old []byte) ([]byte, time.Duration, error)) (Record, error) {
	if err := CheckBucket(bucket); err != nil {
		return Record{}, err
	}
	if key == "" || len(key) > MaxName || !utf8.ValidString(key) {
		return Record{}, fmt.Errorf("key of a record in %s: %w", bucket, ErrTooLarge)
	}
	var value []byte
	if old.Live(now) {
		value = slices.Clone(old.Value)
		if value == nil {
			value = []byte{}
		}
	}
	value, ttl, err := f(value)
	if err != nil {
		return Record{}, err
	}
	if len(value) > MaxValue {
		return Record{}, fmt.Errorf("value of record %s/%s: %w", bucket, key, ErrTooLarge)
	}
	return old.Next(value, ttl, now), nil
}

// Swap stores next if the record's version still is version (0: none). It is on disk when Swap returns true.
func (s *Store) Swap(ctx context.Context, bucket, key string, version uint64, next Record) (bool, error) {
	if err := s.take(ctx); err != nil {
		return false, err
	}
	defer s.give()
	old := s.All(bucket)
	if old[key].Version != version {
		return false, nil
	}
	return true, s.write(bucket, old, map[string]Record{key: next})
}

// Merge takes over those of the records that are newer than what is stored and
// returns their keys. They are on disk when it returns.
func (s *Store) Merge(ctx context.Context, bucket string, records map[string]Record) ([]string, error) {
	if err := CheckBucket(bucket); err != nil {
		return nil, err
	}
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.give()
	old := s.All(bucket)
	newer := make(map[string]Record)
	now := s.clock()
	for k, r := range records {
		was, there := old[k]
		over := !r.Expires.IsZero() && !now.Before(r.Expires)
		// What is over matters only where it ends an older version.
		if r.Version > was.Version && (there || !over) {
			newer[k] = r
		}
	}
	if len(newer) == 0 {
		return nil, nil
	}
	if err := s.write(bucket, old, newer); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(newer)), nil
}

func (s *Store) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) give() { <-s.turn }

// write makes the bucket with the changes durable, then visible. Called with the turn.
// Records whose time is over are left out.
func (s *Store) write(bucket string, old, changes map[string]Record) error {
	now := s.clock()
	next := make(map[string]Record, len(old)+len(changes))
	for k, r := range old {
		if r.Expires.IsZero() || now.Before(r.Expires) {
			next[k] = r
		}
	}
	for k, r := range changes {
		r.Value = slices.Clone(r.Value)
		next[k] = r
	}
	if len(next) > MaxRecords && len(next) > len(old) {
		return fmt.Errorf("bucket %s: %w", bucket, ErrFull)
	}
	if s.dir != "" {
		if err := writeBucket(s.dir, bucket, next); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.buckets[bucket] = next
	s.mu.Unlock()
	return nil
}

// CheckBucket says whether a bucket name can be a file name everywhere.
func CheckBucket(bucket string) error {
	for _, c := range []byte(bucket) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("bucket %q: a name has lower-case letters, digits and hyphens only", bucket)
		}
	}
	if bucket == "" || len(bucket) > 32 {
		return fmt.Errorf("bucket %q: a name has 1 to 32 characters", bucket)
	}
	return nil
}
