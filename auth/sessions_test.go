package auth

import (
	"strings"
	"testing"
	"time"
)

var masterSecret = []byte("0123456789abcdef0123456789abcdef")

const week = 7 * 24 * time.Hour

func testSessions(t *testing.T, store Store) *Sessions {
	t.Helper()
	s, err := OpenSessions(t.Context(), store, masterSecret, week)
	must(t, err)
	return s
}

func TestSessionIsGoodOnEveryNodeUntilItExpires(t *testing.T) {
	store := newMapStore()
	value, issued := testSessions(t, store).Issue("Alice", t0)
	other := testSessions(t, store)
	got, err := other.Verify(value, t0.Add(week-time.Millisecond))
	must(t, err)
	if got.User != "Alice" || got.ID != issued.ID || !got.Expires.Equal(t0.Add(week)) || !got.Issued.Equal(t0) {
		t.Errorf("got %+v, issued %+v", got, issued)
	}
	_, err = other.Verify(value, t0.Add(week))
	wantError(t, err, ErrSession)
	wantError(t, err, ErrExpired)
}

func TestSessionIDsAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		seen[NewSessionID(t0)] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d distinct ids of 1000", len(seen))
	}
}

func TestAlteredCookieIsRefused(t *testing.T) {
	s := testSessions(t, newMapStore())
	value, _ := s.Issue("alice", t0)
	for i := range value {
		for _, c := range []byte{'A', 'B', '.', 0xff} {
			if value[i] == c {
				continue
			}
			altered := value[:i] + string([]byte{c}) + value[i+1:]
			if _, err := s.Verify(altered, t0); err == nil {
				t.Fatalf("accepted with byte %d altered: %q", i, altered)
			}
		}
	}
	for _, bad := range []string{"", ".", "..", "v1..", value + "=", value + ".", " " + value, value[:len(value)-1], "v2" + value[2:], strings.Repeat("x", 4096)} {
		_, err := s.Verify(bad, t0)
		wantError(t, err, ErrSession)
	}
	other, err := OpenSessions(t.Context(), newMapStore(), []byte("another secret of thirty-two byte"), week)
	must(t, err)
	_, err = other.Verify(value, t0)
	wantError(t, err, ErrSession)
}

func TestRevokingOneSessionLeavesTheOthers(t *testing.T) {
	store := newMapStore()
	a, b := testSessions(t, store), testSessions(t, store)
	value, session := a.Issue("alice", t0)
	kept, _ := a.Issue("alice", t0)
	must(t, a.Revoke(t.Context(), session, t0.Add(time.Hour)))
	_, err := a.Verify(value, t0.Add(time.Hour))
	wantError(t, err, ErrRevoked)
	_, err = a.Verify(kept, t0.Add(time.Hour))
	must(t, err)

	if _, err := b.Verify(value, t0.Add(time.Hour)); err != nil {
		t.Fatalf("known before it was told: %v", err)
	}
	must(t, b.Changed(t.Context(), soleKey(t, store)))
	_, err = b.Verify(value, t0.Add(time.Hour))
	wantError(t, err, ErrRevoked)

	_, err = testSessions(t, store).Verify(value, t0.Add(time.Hour)) // after a restart
	wantError(t, err, ErrRevoked)
	if life := store.lives[BucketRevocations+"/"+soleKey(t, store)]; life != week-time.Hour {
		t.Errorf("record lives %v, want what is left of the session: %v", life, week-time.Hour)
	}
}

func soleKey(t *testing.T, store *mapStore) string {
	t.Helper()
	records, err := store.Load(t.Context(), BucketRevocations)
	must(t, err)
	if len(records) != 1 {
		t.Fatalf("%d revocations, want 1", len(records))
	}
	for key := range records {
		return key
	}
	return ""
}

func TestRevokingAUserEndsWhatBeganAndNotWhatBeginsLater(t *testing.T) {
	s := testSessions(t, newMapStore())
	before, _ := s.Issue("Alice", t0)
	same, _ := s.Issue("alice", t0.Add(time.Hour))
	bob, _ := s.Issue("bob", t0)
	must(t, s.RevokeUser(t.Context(), "alice", t0.Add(time.Hour)))
	must(t, s.RevokeUser(t.Context(), "alice", t0.Add(time.Minute))) // late news of an earlier one
	after, _ := s.Issue("alice", t0.Add(time.Hour+time.Millisecond))
	now := t0.Add(2 * time.Hour)
	for value, want := range map[string]bool{before: false, same: false, bob: true, after: true} {
		if _, err := s.Verify(value, now); (err == nil) != want {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestRevocationsAreForgottenWhenTheyHaveNoUse(t *testing.T) {
	s := testSessions(t, newMapStore())
	for i := range 10 {
		_, session := s.Issue("alice", t0)
		must(t, s.Revoke(t.Context(), session, t0.Add(time.Duration(i))))
	}
	_, session := s.Issue("alice", t0.Add(2*week))
	must(t, s.Revoke(t.Context(), session, t0.Add(2*week)))
	if n := s.revoked.cache.count(); n != 1 {
		t.Errorf("%d revocations in memory, want 1", n)
	}
}

func FuzzSessionCookie(f *testing.F) {
	s, err := OpenSessions(f.Context(), newMapStore(), masterSecret, week)
	if err != nil {
		f.Fatal(err)
	}
	// Not random: each process of the fuzzer makes it anew.
	good := s.value(Session{User: "alice", ID: encode(append(stamp(t0), "sixteen random b"...)), Expires: t0.Add(week)})
	f.Add(good)
	f.Add("v1.AAAA.AAAA")
	f.Add(good[:20] + good[21:])
	f.Fuzz(func(t *testing.T, value string) {
		if session, err := s.Verify(value, t0); err == nil && value != good {
			t.Errorf("accepted %q as %+v", value, session)
		}
	})
}
