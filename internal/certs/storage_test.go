package certs

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"callbox/bus"
	"callbox/bus/memory"
	"callbox/bus/redis"
	"callbox/internal/testkit"
)

// nodes opens the records of two nodes that share them.
type nodes func(t *testing.T) (a, b bus.Bus)

func onMemory(t *testing.T) (a, b bus.Bus) {
	t.Helper()
	network := memory.NewNetwork()
	open := func(name string) bus.Bus {
		n, err := network.Open(memory.Config{Name: name, Store: store(t)})
		if err != nil {
			t.Fatal(err)
		}
		return started(t, n)
	}
	return open("a"), open("b")
}

func onRedis(t *testing.T, url string) (a, b bus.Bus) {
	t.Helper()
	open := func(name string) bus.Bus {
		n, err := redis.Open(t.Context(), redis.Config{URL: url, Name: name, Prefix: "certs", Secret: bytes.Repeat([]byte("k"), 32), Store: store(t)})
		if err != nil {
			t.Fatal(err)
		}
		return started(t, n)
	}
	return open("a"), open("b")
}

func store(t *testing.T) *bus.Store {
	t.Helper()
	s, err := bus.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// telling is a bus whose changes reach who has asked for them.
type telling struct {
	bus.Bus
	mu sync.Mutex
	to func()
}

func (b *telling) set(to func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = to
}

// deaf is a handler for tests in which only records matter.
type deaf struct{ bus *telling }

func (deaf) Message(bus.NodeID, []byte)     {}
func (deaf) Lost(bus.NodeID, []byte, error) {}
func (d deaf) Changed(bucket, _ string) {
	d.bus.mu.Lock()
	defer d.bus.mu.Unlock()
	if d.bus.to != nil && bucket == BucketCertificates {
		d.bus.to()
	}
}
func (deaf) NodesChanged([]bus.NodeInfo) {}
func (deaf) Link(bool)                   {}

func started(t *testing.T, b bus.Bus) bus.Bus {
	t.Helper()
	told := &telling{Bus: b}
	if err := b.Start(deaf{told}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return told
}

// everywhere runs a test against every implementation of the records.
func everywhere(t *testing.T, test func(t *testing.T, open nodes)) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, onMemory)
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		test(t, func(t *testing.T) (bus.Bus, bus.Bus) { return onRedis(t, "redis://"+miniredis.RunT(t).Addr()) })
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		test(t, func(t *testing.T) (bus.Bus, bus.Bus) { return onRedis(t, testkit.Redis(t).URL()) })
	})
}

// testLease is long enough that a machine under load does not lose a lock that it holds.
const testLease = 3 * time.Second

func open(b bus.Bus) *storage { return newStorage(b, testLease, slog.New(slog.DiscardHandler)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStorageIsATreeThatAllNodesSee(t *testing.T) {
	everywhere(t, func(t *testing.T, nodes nodes) {
		busA, busB := nodes(t)
		a, b, ctx := open(busA), open(busB), t.Context()
		if _, err := a.Load(ctx, "x/y"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("load of nothing: %v", err)
		}
		if _, err := a.List(ctx, "x", true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("list of nothing: %v", err)
		}
		must(t, a.Delete(ctx, "x"))
		for _, key := range []string{"x/y/one", "x/y/two", "x/three", "xy/four"} {
			must(t, a.Store(ctx, key, []byte(key)))
		}
		must(t, a.Store(ctx, "x/three", []byte("again")))
		must(t, a.Store(ctx, "x/empty", []byte{}))
		for key, want := range map[string]string{"x/y/one": "x/y/one", "x/three": "again", "x/empty": ""} {
			if got, err := b.Load(ctx, key); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", key, got, err)
			}
		}
		for _, c := range []struct {
			path      string
			recursive bool
			want      []string
		}{
			{"x", true, []string{"x/empty", "x/three", "x/y/one", "x/y/two"}},
			{"x", false, []string{"x/empty", "x/three", "x/y"}},
			{"x/y", false, []string{"x/y/one", "x/y/two"}},
			{"", false, []string{"x", "xy"}},
		} {
			if got, err := b.List(ctx, c.path, c.recursive); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("list %q %v: %q, %v", c.path, c.recursive, got, err)
			}
		}
		info, err := b.Stat(ctx, "x/three")
		if err != nil || !info.IsTerminal || info.Size != 5 || time.Since(info.Modified).Abs() > time.Minute {
			t.Errorf("stat of a value: %+v, %v", info, err)
		}
		if info, err := b.Stat(ctx, "x/y"); err != nil || info.IsTerminal {
			t.Errorf("stat of a folder: %+v, %v", info, err)
		}
		if !b.Exists(ctx, "x/y") || b.Exists(ctx, "x/y/on") {
			t.Error("a folder exists, half a name does not")
		}
		must(t, b.Delete(ctx, "x"))
		if got, err := a.List(ctx, "", true); err != nil || !slices.Equal(got, []string{"xy/four"}) {
			t.Errorf("after deleting x: %q, %v", got, err)
		}
	})
}

func TestLockIsHeldByOneAtATime(t *testing.T) {
	everywhere(t, func(t *testing.T, nodes nodes) {
		busA, busB := nodes(t)
		var inside, rounds atomic.Int32
		var wg sync.WaitGroup
		for _, b := range []bus.Bus{busA, busB, busA} {
			wg.Go(func() {
				s := open(b)
				for range 3 {
					if err := s.Lock(t.Context(), "one"); err != nil {
						t.Error(err)
						return
					}
					if inside.Add(1) != 1 {
						t.Error("two hold the lock")
					}
					if err := s.Store(t.Context(), "under/one", []byte("x")); err != nil {
						t.Error(err)
					}
					rounds.Add(1)
					inside.Add(-1)
					if err := s.Unlock(t.Context(), "one"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if rounds.Load() != 9 {
			t.Errorf("%d rounds", rounds.Load())
		}
	})
}

func TestWaitingForALockEndsWithTheContext(t *testing.T) {
	t.Parallel()
	a, b := onMemory(t)
	holder, waiter := open(a), open(b)
	must(t, holder.Lock(t.Context(), "one"))
	ctx, cancel := context.WithTimeout(t.Context(), testLease/10)
	defer cancel()
	if err := waiter.Lock(ctx, "one"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	must(t, holder.Unlock(t.Context(), "one"))
	if err := holder.Unlock(t.Context(), "one"); err == nil {
		t.Error("a lock that is not held was given up")
	}
}

// A holder that lives keeps its lock however long its work takes.
func TestHolderThatLivesKeepsItsLock(t *testing.T) {
	t.Parallel()
	a, b := onMemory(t)
	holder, waiter := open(a), open(b)
	must(t, holder.Lock(t.Context(), "one"))
	ctx, cancel := context.WithTimeout(t.Context(), testLease*3/2)
	defer cancel()
	if err := waiter.Lock(ctx, "one"); err == nil {
		t.Error("taken from a holder that lives")
	}
	must(t, holder.Store(t.Context(), "key", []byte("x")))
	must(t, holder.Unlock(t.Context(), "one"))
}

// frozen lets no sign of life through: the node was stopped, or cut off.
type frozen struct {
	bus.Records
	still atomic.Bool
}

var errFrozen = errors.New("frozen")

func (f *frozen) Update(ctx context.Context, bucket, key string, do func([]byte) ([]byte, time.Duration, error)) error {
	if f.still.Load() {
		return errFrozen
	}
	return f.Records.Update(ctx, bucket, key, do)
}

func TestLockOfADeadHolderIsTakenAndTheHolderIsFenced(t *testing.T) {
	everywhere(t, func(t *testing.T, nodes nodes) {
		busA, busB := nodes(t)
		stopped := &frozen{Records: busA}
		old := newStorage(stopped, testLease, slog.New(slog.DiscardHandler))
		must(t, old.Lock(t.Context(), "one"))
		must(t, old.Store(t.Context(), "key", []byte("old")))
		stopped.still.Store(true)

		successor := open(busB)
		must(t, successor.Lock(t.Context(), "one"))
		must(t, successor.Store(t.Context(), "key", []byte("new")))

		stopped.still.Store(false)
		if err := old.Store(t.Context(), "key", []byte("late")); !errors.Is(err, ErrFenced) {
			t.Errorf("late write: %v", err)
		}
		if err := old.Store(t.Context(), "untouched", []byte("late")); !errors.Is(err, ErrFenced) {
			t.Errorf("late write elsewhere: %v", err)
		}
		if err := old.Delete(t.Context(), "key"); !errors.Is(err, ErrFenced) {
			t.Errorf("late deletion: %v", err)
		}
		must(t, old.Unlock(t.Context(), "one")) // is the successor's by now
		must(t, successor.Store(t.Context(), "key", []byte("newer")))
		must(t, successor.Unlock(t.Context(), "one"))
		if got, err := old.Load(t.Context(), "key"); err != nil || string(got) != "newer" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// The token alone fences too, where the lock was given up between the look at it and the write.
func TestTokenOrdersWrites(t *testing.T) {
	a, _ := onMemory(t)
	first, second := open(a), open(a)
	must(t, first.Lock(t.Context(), "one"))
	must(t, first.Unlock(t.Context(), "one"))
	must(t, second.Lock(t.Context(), "one"))
	must(t, second.Store(t.Context(), "key", []byte("second")))
	must(t, second.Unlock(t.Context(), "one"))
	first.held = []*lock{{name: "one", holder: "", token: 1}} // as if it had looked before the second came
	if err := first.Store(t.Context(), "key", []byte("first")); !errors.Is(err, ErrFenced) {
		t.Errorf("got %v", err)
	}
}
