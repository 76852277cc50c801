package bustest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"callbox/bus"
)

func (n *node) put(bucket, key, value string, ttl time.Duration) {
	n.t.Helper()
	err := n.Update(ctx(n.t), bucket, key, func([]byte) ([]byte, time.Duration, error) { return []byte(value), ttl, nil })
	if err != nil {
		n.t.Fatalf("%s: put %s/%s: %v", n.id, bucket, key, err)
	}
}

func (n *node) remove(bucket, key string) {
	n.t.Helper()
	err := n.Update(ctx(n.t), bucket, key, func([]byte) ([]byte, time.Duration, error) { return nil, 0, nil })
	if err != nil {
		n.t.Fatalf("%s: remove %s/%s: %v", n.id, bucket, key, err)
	}
}

// get returns a record, "" when there is none.
func (n *node) get(bucket, key string) string {
	n.t.Helper()
	all, err := n.Load(ctx(n.t), bucket)
	if err != nil || all == nil {
		n.t.Fatalf("%s: load %s: %v, %v", n.id, bucket, all, err)
	}
	return string(all[key])
}

func recordsContention(t *testing.T, c Cluster) {
	nodes := []*node{open(t, c, "a"), open(t, c, "b"), open(t, c, "d")}
	const each = 15
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for range each {
				err := nodes[i%3].Update(ctx(t), "counts", "k", func(old []byte) ([]byte, time.Duration, error) {
					n := 0
					if old != nil {
						var err error
						if n, err = strconv.Atoi(string(old)); err != nil {
							return nil, 0, err
						}
					}
					return strconv.AppendInt(nil, int64(n+1), 10), 0, nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		if got := n.get("counts", "k"); got != strconv.Itoa(6*each) {
			t.Errorf("%s counts %q after %d increments", n.id, got, 6*each)
		}
	}
}

func recordsError(t *testing.T, c Cluster) {
	a := open(t, c, "a")
	a.put("b", "k", "v", 0)
	failed := errors.New("no")
	err := a.Update(ctx(t), "b", "k", func(old []byte) ([]byte, time.Duration, error) {
		old[0] = 'x' // it is a copy
		return []byte("w"), 0, failed
	})
	if err != failed {
		t.Errorf("update: %v, want the function's own error", err)
	}
	for _, bad := range []struct{ bucket, key string }{{"", "k"}, {"../b", "k"}, {"b", ""}, {"B", "k"}} {
		err := a.Update(ctx(t), bad.bucket, bad.key, func([]byte) ([]byte, time.Duration, error) { return []byte("v"), 0, nil })
		if err == nil {
			t.Errorf("update of %q/%q succeeded", bad.bucket, bad.key)
		}
	}
	err = a.Update(ctx(t), "b", "k", func([]byte) ([]byte, time.Duration, error) { return make([]byte, bus.MaxValue+1), 0, nil })
	if !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("update with too much: %v, want ErrTooLarge", err)
	}
	if got := a.get("b", "k"); got != "v" {
		t.Errorf("the record is %q, want it unchanged", got)
	}
}

func recordsDelete(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	value := "binary \x00\xff and text"
	a.put("b", "k", value, 0)
	a.put("b", "empty", "", 0)
	if got := b.get("b", "k"); got != value {
		t.Errorf("the other node has %q", got)
	}
	all, err := b.Load(ctx(t), "b")
	if _, there := all["empty"]; !there || err != nil {
		t.Errorf("an empty record is no record: %v, %v", all, err)
	}
	b.remove("b", "k")
	Eventually(t, patience, "the deletion to arrive", func() bool { return a.get("b", "k") == "" })
	err = a.Update(ctx(t), "b", "k", func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			t.Errorf("a deleted record is still %q", old)
		}
		return []byte("again"), 0, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.get("b", "k"); got != "again" {
		t.Errorf("made again, the record is %q", got)
	}
}

func recordsTTL(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	a.put("b", "short", "v", 300*time.Millisecond)
	a.put("b", "long", "v", time.Hour)
	if got := b.get("b", "long"); got != "v" {
		t.Errorf("the long-lived record is %q", got)
	}
	for _, n := range []*node{a, b} {
		Eventually(t, patience, "the record to end", func() bool { return n.get("b", "short") == "" })
	}
	err := b.Update(ctx(t), "b", "short", func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			t.Errorf("a record past its time is still %q", old)
		}
		return []byte("new"), 0, nil
	})
	if err != nil || a.get("b", "short") != "new" {
		t.Errorf("after its time the key could not be used again: %v", err)
	}
}

func recordsChanged(t *testing.T, c Cluster) {
	nodes := []*node{open(t, c, "a"), open(t, c, "b"), open(t, c, "d")}
	meet(nodes...)
	told := func(n *node, what string) func() bool {
		return func() bool { return slices.Contains(n.changes, what) }
	}
	nodes[1].put("b", "k", "v", 0)
	for _, n := range nodes {
		n.wait("the change", told(n, "b/k"))
		if got := n.get("b", "k"); got != "v" {
			t.Errorf("%s was told of the change but has %q", n.id, got)
		}
		n.event(func() { n.changes = nil })
	}
	nodes[2].remove("b", "k")
	for _, n := range nodes {
		n.wait("the deletion", told(n, "b/k"))
	}
}

func recordsBeforeStart(t *testing.T, c Cluster) {
	a := open(t, c, "a")
	a.put("b", "k", "v", 0)
	b := prepare(t, c, "b", nil)
	if got := b.get("b", "k"); got != "v" {
		t.Errorf("before Start the record is %q", got)
	}
	b.put("b", "k2", "v2", 0)
	if got := a.get("b", "k2"); got != "v2" {
		t.Errorf("what was written before Start is %q elsewhere", got)
	}
}

func newStore(t testing.TB, dir string) *bus.Store {
	t.Helper()
	s, err := bus.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func recordsOnDisk(t *testing.T, c Cluster) {
	dir := t.TempDir()
	a := openStore(t, c, "a", newStore(t, dir))
	b := open(t, c, "b")
	meet(a, b)
	for i := range 5 {
		b.put("b", fmt.Sprint("k", i), fmt.Sprint("v", i), 0)
	}
	b.remove("b", "k4")
	disk := func() map[string][]byte {
		all, err := newStore(t, dir).Load(ctx(t), "b")
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	Eventually(t, patience, "the records on the other node's disk", func() bool {
		all := disk()
		return len(all) == 4 && string(all["k0"]) == "v0" && string(all["k3"]) == "v3"
	})
	// A node's own update is on its disk when it returns.
	a.put("b", "own", "v", 0)
	if got := string(disk()["own"]); got != "v" {
		t.Errorf("its own update is %q on its disk", got)
	}
}

func recordsPutBack(t *testing.T, c Cluster) {
	f, ok := c.(Flusher)
	if !ok {
		t.Skip("this implementation cannot lose its state")
	}
	dirA, dirB := t.TempDir(), t.TempDir()
	a := openStore(t, c, "a", newStore(t, dirA))
	b := openStore(t, c, "b", newStore(t, dirB))
	meet(a, b)
	a.put("b", "kept", "old", 0)
	a.put("b", "gone", "v", 0)
	Eventually(t, patience, "the other disk", func() bool { return len(newStore(t, dirB).All("b")) == 2 })
	// b is away while a changes things: its disk is behind.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a.put("b", "kept", "new", 0)
	a.remove("b", "gone")
	f.Flush(t)
	b2 := openStore(t, c, "b", newStore(t, dirB))
	for _, n := range []*node{a, b2} {
		Eventually(t, patience, "the newest records to be back", func() bool {
			all, err := n.Load(ctx(t), "b")
			return err == nil && string(all["kept"]) == "new" && all["gone"] == nil
		})
	}
	// A node without a disk of its own finds them too.
	d := open(t, c, "d")
	if got := d.get("b", "kept"); got != "new" {
		t.Errorf("a new node finds %q", got)
	}
	err := d.Update(ctx(t), "b", "gone", func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			t.Errorf("the deleted record is back as %q", old)
		}
		return nil, 0, nil
	})
	if err != nil {
		t.Error(err)
	}
}
