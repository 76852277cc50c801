package auth

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// t0 is when every test begins.
var t0 = time.Date(2026, 3, 14, 15, 9, 26, 535_000_000, time.UTC)

var errStore = errors.New("store is down")

// mapStore is a Store in memory. It keeps the life of each record for the tests to see, and lets none end.
type mapStore struct {
	mu      sync.Mutex
	records map[string]map[string][]byte
	lives   map[string]time.Duration // by bucket/key, of the last update
	updates int
	down    bool
}

func newMapStore() *mapStore {
	return &mapStore{records: map[string]map[string][]byte{}, lives: map[string]time.Duration{}}
}

func (s *mapStore) Update(ctx context.Context, bucket, key string, f func([]byte) ([]byte, time.Duration, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.down {
		return errStore
	}
	text, ttl, err := f(s.records[bucket][key])
	if err != nil {
		return err
	}
	s.updates++
	if s.records[bucket] == nil {
		s.records[bucket] = map[string][]byte{}
	}
	s.lives[bucket+"/"+key] = ttl
	if text == nil {
		delete(s.records[bucket], key)
	} else {
		s.records[bucket][key] = text
	}
	return nil
}

func (s *mapStore) Load(_ context.Context, bucket string) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errStore
	}
	out := maps.Clone(s.records[bucket])
	if out == nil {
		out = map[string][]byte{}
	}
	return out, nil
}

func (s *mapStore) put(bucket, key, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records[bucket] == nil {
		s.records[bucket] = map[string][]byte{}
	}
	s.records[bucket][key] = []byte(text)
}

func (s *mapStore) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

// cheap makes hashes that take microseconds.
var cheap = cost{memory: 64, passes: 1, threads: 1}

func testUsers(t *testing.T, store Store) *Users {
	t.Helper()
	u, err := openUsers(t.Context(), store, cheap)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}
