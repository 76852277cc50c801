package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"callbox/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *bus.Store {
	t.Helper()
	s, err := bus.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *bus.Store, key, value string, ttl time.Duration) {
	t.Helper()
	err := s.Update(context.Background(), "users", key, func([]byte) ([]byte, time.Duration, error) { return []byte(value), ttl, nil })
	if err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, s *bus.Store) map[string][]byte {
	t.Helper()
	all, err := s.Load(context.Background(), "users")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAnUpdateThatFailedHasNotHappened: not after a restart either.
func TestAnUpdateThatFailedHasNotHappened(t *testing.T) {
	for _, inTheWay := range []string{"users.json", "users.json.bak"} {
		dir := t.TempDir()
		s := open(t, dir)
		put(t, s, "bob", "before", 0)
		good, err := os.ReadFile(filepath.Join(dir, "users.json"))
		if err != nil {
			t.Fatal(err)
		}
		// A directory cannot be replaced by a file.
		at := filepath.Join(dir, inTheWay)
		if err := os.Remove(at); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(at, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		err = s.Update(context.Background(), "users", "bob", func([]byte) ([]byte, time.Duration, error) { return []byte("after"), 0, nil })
		if err == nil {
			t.Fatal("no error")
		}
		if got := string(load(t, s)["bob"]); got != "before" {
			t.Fatalf("%s: %q", inTheWay, got)
		}
		if inTheWay == "users.json" {
			continue
		}
		now, err := os.ReadFile(filepath.Join(dir, "users.json"))
		if err != nil || string(now) != string(good) {
			t.Fatalf("the file has changed: %v\n%s", err, now)
		}
	}
}

func TestStoreKeepsRecordsAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	values := map[string]string{"text": "<ü>\u2028", "binary": "\x00\xff", "empty": "", "json": `{"a":1}`}
	for k, v := range values {
		put(t, s, k, v, 0)
	}
	put(t, s, "gone", "v", 0)
	if err := s.Update(context.Background(), "users", "gone", func(old []byte) ([]byte, time.Duration, error) { return nil, 0, nil }); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	all := load(t, again)
	if len(all) != len(values) {
		t.Errorf("%d records after a restart, want %d", len(all), len(values))
	}
	for k, v := range values {
		if got, there := all[k]; !there || string(got) != v {
			t.Errorf("%s is %q after a restart, want %q", k, got, v)
		}
	}
	if r, there := again.Get("users", "gone"); !there || !r.Deleted || r.Version == 0 {
		t.Errorf("the deletion was forgotten: %+v", r)
	}
	for _, name := range []string{"users.json", "users.json.bak"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Separator == '/' && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestDamagedFileIsNamedAndNotTouched(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut short":    func(b []byte) []byte { return b[:len(b)/2] },
		"empty":        func([]byte) []byte { return nil },
		"overwritten":  func(b []byte) []byte { b[len(b)/2] = '\x00'; return b },
		"other shape":  func([]byte) []byte { return []byte(`[]`) },
		"other format": func([]byte) []byte { return []byte(`{}`) },
		"tail":         func(b []byte) []byte { return append(b, "{}"...) },
		"no version":   func([]byte) []byte { return []byte(`{"format":"callbox records 1","records":{"a":{}}}`) },
		"null record":  func([]byte) []byte { return []byte(`{"format":"callbox records 1","records":{"a":null}}`) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, open(t, dir), "alice", "v", 0)
			path := filepath.Join(dir, "users.json")
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := damage(append([]byte(nil), good...))
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = bus.OpenStore(dir)
			if !errors.Is(err, bus.ErrDamaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "at byte ") || !strings.Contains(err.Error(), "copy that over") {
				t.Fatalf("open: %v; want the file, the place and the remedy", err)
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != string(bad) {
				t.Errorf("the damaged file was changed: %v", err)
			}
			// The remedy works.
			backup, err := os.ReadFile(path + ".bak")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, backup, 0o600); err != nil {
				t.Fatal(err)
			}
			if all := load(t, open(t, dir)); string(all["alice"]) != "v" {
				t.Errorf("after the remedy: %v", all)
			}
		})
	}
}

func TestUpdateThatCannotBeWrittenChangesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "alice", "v", 0)
	// A directory in the way of the temporary file, for root too.
	if err := os.Mkdir(filepath.Join(dir, "users.json.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.Update(context.Background(), "users", "alice", func([]byte) ([]byte, time.Duration, error) { return []byte("w"), 0, nil })
	if err == nil || !strings.Contains(err.Error(), "users file") {
		t.Errorf("update: %v, want an error that names the users file", err)
	}
	if all := load(t, s); string(all["alice"]) != "v" {
		t.Errorf("in memory: %q", all["alice"])
	}
	if all := load(t, open(t, dir)); string(all["alice"]) != "v" {
		t.Errorf("on disk: %q", all["alice"])
	}
}

func TestConcurrentUpdatesAreAllKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				put(t, s, fmt.Sprint(i, "-", j), "v", 0)
				err := s.Update(context.Background(), "users", "all", func(old []byte) ([]byte, time.Duration, error) {
					return append(old, 'x'), 0, nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	all := load(t, open(t, dir))
	if len(all) != 41 || len(all["all"]) != 40 {
		t.Errorf("%d records, %d appended; want 41 and 40", len(all), len(all["all"]))
	}
}

func TestMergeKeepsTheHigherVersion(t *testing.T) {
	s := open(t, "")
	put(t, s, "k", "mine", 0)
	mine, _ := s.Get("users", "k")
	ctx := context.Background()
	older := bus.Record{Version: mine.Version - 1, Value: []byte("older")}
	if newer, err := s.Merge(ctx, "users", map[string]bus.Record{"k": older}); err != nil || len(newer) != 0 {
		t.Errorf("merge of an older record: %v, %v", newer, err)
	}
	tombstone := mine.Next(nil, 0, time.Now())
	if newer, err := s.Merge(ctx, "users", map[string]bus.Record{"k": tombstone}); err != nil || len(newer) != 1 {
		t.Errorf("merge of a deletion: %v, %v", newer, err)
	}
	if all := load(t, s); len(all) != 0 {
		t.Errorf("after the deletion: %v", all)
	}
}

func TestVersionsGrowEvenWhenTheClockGoesBack(t *testing.T) {
	now := time.Now()
	r := bus.Record{}.Next([]byte("v"), 0, now)
	for range 3 {
		next := r.Next([]byte("v"), time.Hour, now.Add(-48*time.Hour))
		if next.Version <= r.Version {
			t.Fatalf("version %d after %d", next.Version, r.Version)
		}
		r = next
	}
	if r.Live(now.Add(48 * time.Hour)) {
		t.Error("a record lives past its time")
	}
	if (bus.Record{}).Live(now) {
		t.Error("no record at all is live")
	}
}

func TestStoreIsBounded(t *testing.T) {
	s := open(t, "")
	many := make(map[string]bus.Record, bus.MaxRecords)
	for i := range bus.MaxRecords {
		many[fmt.Sprint(i)] = bus.Record{Version: 1, Value: []byte("v")}
	}
	if _, err := s.Merge(context.Background(), "users", many); err != nil {
		t.Fatal(err)
	}
	err := s.Update(context.Background(), "users", "one more", func([]byte) ([]byte, time.Duration, error) { return []byte("v"), 0, nil })
	if !errors.Is(err, bus.ErrFull) {
		t.Errorf("one more: %v, want ErrFull", err)
	}
}

// TestForeignIsWhatOthersHaveChanged in the files: a copy that was put back, older as it is, and not what the store wrote itself.
func TestForeignIsWhatOthersHaveChanged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "ada", "1", 0)
	put(t, s, "gone", "1", time.Hour)
	file := filepath.Join(dir, "users.json")
	copied, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "ada", "2", 0)
	put(t, s, "bob", "1", 0)
	if err := s.Update(t.Context(), "users", "gone", func([]byte) ([]byte, time.Duration, error) { return nil, 0, nil }); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Foreign(t.Context()); err != nil || len(changed) != 0 {
		t.Fatalf("its own writing is a change: %v %v", changed, err)
	}
	if err := os.WriteFile(file, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err := s.Foreign(t.Context())
	if err != nil || len(changed) != 1 || len(changed["users"]) != 3 {
		t.Fatalf("%v %v", changed, err)
	}
	got := changed["users"]
	if string(got["ada"].Value) != "1" || !got["bob"].Deleted || string(got["gone"].Value) != "1" || got["gone"].Deleted {
		t.Errorf("%+v", got)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Foreign(t.Context()); !errors.Is(err, bus.ErrDamaged) {
		t.Errorf("%v", err)
	}
}
