package auth

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	home   = netip.MustParseAddr("203.0.113.7")
	office = netip.MustParseAddr("198.51.100.9")
)

func testThrottle(t *testing.T, store Store) *Throttle {
	t.Helper()
	th, err := OpenThrottle(t.Context(), store)
	must(t, err)
	return th
}

// fail makes a try that is admitted and fails.
func fail(t *testing.T, th *Throttle, addr netip.Addr, user string, now time.Time) {
	t.Helper()
	if wait, ok := th.Allow(addr, user, now); !ok {
		t.Fatalf("refused for %v", wait)
	}
	must(t, th.Failed(t.Context(), addr, user, now))
}

func TestDelayDoublesAfterTheFreeFailures(t *testing.T) {
	th := testThrottle(t, newMapStore())
	now := t0
	for range userPolicy.free {
		fail(t, th, home, "alice", now)
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		fail(t, th, home, "alice", now)
		wait, ok := th.Allow(office, "ALICE", now)
		if ok || wait != want*time.Second {
			t.Fatalf("wait %v, %v, want %v", wait, ok, want*time.Second)
		}
		now = now.Add(wait)
	}
	if _, ok := th.Allow(home, "bob", now); !ok {
		t.Error("another user is refused")
	}
	if _, ok := th.Allow(office, "alice", now.Add(forgetAfter+time.Second)); !ok {
		t.Error("failures are not forgotten")
	}
}

func TestAddressIsThrottledOverManyUsers(t *testing.T) {
	th := testThrottle(t, newMapStore())
	for i := range addressPolicy.free + 1 {
		fail(t, th, home, fmt.Sprint("user", i), t0)
	}
	if wait, ok := th.Allow(home, "alice", t0); ok || wait != time.Second {
		t.Errorf("wait %v, %v", wait, ok)
	}
	if _, ok := th.Allow(office, "alice", t0); !ok {
		t.Error("another address is refused")
	}
}

func TestAddressesOfOneCustomerCountTogether(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8:0:100::1", "2001:db8:0:1ff:ffff::2", true},
		{"2001:db8:0:100::1", "2001:db8:0:200::1", false},
		{"::ffff:203.0.113.7", "203.0.113.7", true},
		{"203.0.113.7", "203.0.113.8", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		if got := addressSubject(netip.MustParseAddr(c.a)) == addressSubject(netip.MustParseAddr(c.b)); got != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
	if _, ok := testThrottle(t, newMapStore()).Allow(netip.Addr{}, "alice", t0); !ok {
		t.Error("no address: refused")
	}
}

func TestTriesAtTheSameTimeDoNotAllPass(t *testing.T) {
	th := testThrottle(t, newMapStore())
	passed := 0
	for range 100 {
		if _, ok := th.Allow(home, "alice", t0); ok {
			passed++
		}
	}
	if passed != userPolicy.free+1 {
		t.Errorf("%d of 100 passed, want %d", passed, userPolicy.free+1)
	}
}

func TestSuccessForgetsTheUserButNotTheAddress(t *testing.T) {
	store := newMapStore()
	a, b := testThrottle(t, store), testThrottle(t, store)
	now := t0
	for range userPolicy.free + 1 {
		fail(t, a, home, "alice", now)
	}
	now = now.Add(time.Second)
	if _, ok := a.Allow(home, "alice", now); !ok {
		t.Fatal("refused after the delay")
	}
	must(t, a.Succeeded(t.Context(), home, "alice"))
	for range userPolicy.free {
		fail(t, a, home, "alice", now)
	}
	if f := a.addresses.get(addressSubject(home)); f.Count != 2*userPolicy.free+1 {
		t.Errorf("address has %d failures", f.Count)
	}
	must(t, b.Reload(t.Context()))
	if _, ok := b.Allow(office, "alice", now); !ok {
		t.Error("the other node still refuses")
	}
}

func TestUndecidedTryDoesNotCount(t *testing.T) {
	th := testThrottle(t, newMapStore())
	for range 100 {
		if _, ok := th.Allow(home, "alice", t0); !ok {
			t.Fatal("refused")
		}
		th.Withdraw(home, "alice")
	}
	if len(th.users.bykey) != 0 || th.users.order.Len() != 0 || len(th.addresses.bykey) != 0 {
		t.Error("something is remembered")
	}
}

func TestOtherNodesAndRestartsKnowOfTheDelay(t *testing.T) {
	store := newMapStore()
	a, b := testThrottle(t, store), testThrottle(t, store)
	now := t0
	for range userPolicy.free + 3 {
		fail(t, a, home, "alice", now)
		now = now.Add(4 * time.Second)
	}
	if _, ok := b.Allow(office, "alice", now); !ok {
		t.Error("known before it was told")
	}
	for key := range store.records[BucketThrottle] {
		must(t, b.Changed(t.Context(), key))
	}
	now = now.Add(-4 * time.Second)
	for name, node := range map[string]*Throttle{"told": b, "restarted": testThrottle(t, store)} {
		if _, ok := node.Allow(office, "alice", now); ok {
			t.Errorf("%s: admitted", name)
		}
	}
	if life := store.lives[BucketThrottle+"/"+slotKey(userPolicy, userSubject("alice"))]; life != forgetAfter {
		t.Errorf("record lives %v", life)
	}
}

func TestStrangersCannotMakeMemoryOrStoreGrow(t *testing.T) {
	store := newMapStore()
	th := testThrottle(t, store)
	for i := range 3 * throttleSize {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if _, ok := th.Allow(addr, fmt.Sprint("user", i), t0); !ok {
			t.Fatal("refused")
		}
		must(t, th.Failed(t.Context(), addr, fmt.Sprint("user", i), t0))
	}
	if len(th.users.bykey) != throttleSize || th.users.order.Len() != throttleSize {
		t.Errorf("%d users remembered, want %d", len(th.users.bykey), throttleSize)
	}
	if n := store.written(); n != 0 {
		t.Errorf("%d writes for failures that are free", n)
	}
	stubborn := policy{kind: "user", free: 0}
	for i, shared := 0, 0; shared < slotSize+10; i++ { // all in one slot
		if subject := fmt.Sprint("stubborn", i); slotKey(stubborn, subject) == "user-0" {
			must(t, th.share(t.Context(), stubborn, subject, failures{Count: 1, Last: t0}, t0))
			shared++
		}
	}
	s, err := decodeSlot("user-0", store.records[BucketThrottle]["user-0"])
	must(t, err)
	if len(s) != slotSize || len(store.records[BucketThrottle]) != 1 {
		t.Errorf("%d subjects in one of %d records, want %d in one", len(s), len(store.records[BucketThrottle]), slotSize)
	}
}

func TestFullSlotForgetsTheOldest(t *testing.T) {
	s := slot{"a": {Count: 9, Last: t0.Add(time.Second)}, "b": {Count: 9, Last: t0}, "c": {Count: 9, Last: t0.Add(time.Minute)}}
	if got := s.oldest(); got != "b" {
		t.Errorf("got %s", got)
	}
}
