package auth

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestUserIsVerifiedByTheRightPasswordOnly(t *testing.T) {
	u := testUsers(t, newMapStore())
	must(t, u.Add(t.Context(), "Alice", "correct horse", true, t0))
	got, err := u.Verify(t.Context(), "alice", "correct horse")
	must(t, err)
	if want := (User{Name: "Alice", Admin: true, Created: t0, PasswordChanged: t0}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, password := range map[string]string{"alice": "correct hors", "bob": "correct horse", "": "", "ALICE": strings.Repeat("x", 5000)} {
		_, err := u.Verify(t.Context(), name, password)
		wantError(t, err, ErrCredentials)
	}
}

func TestAddRefusesBadNamesAndPasswords(t *testing.T) {
	u := testUsers(t, newMapStore())
	must(t, u.Add(t.Context(), "a.b_c-d@e", "12345678", false, t0))
	for _, c := range []struct {
		name, password string
		want           error
	}{
		{"", "12345678", ErrName},
		{"a b", "12345678", ErrName},
		{"a/b", "12345678", ErrName},
		{"аlice", "12345678", ErrName}, // Cyrillic а
		{"a\x00", "12345678", ErrName},
		{strings.Repeat("a", 65), "12345678", ErrName},
		{"bob", "1234567", ErrPassword},
		{"bob", strings.Repeat("x", 1025), ErrPassword},
		{"A.B_c-d@e", "12345678", ErrExists},
	} {
		wantError(t, u.Add(t.Context(), c.name, c.password, false, t0), c.want)
	}
	if n := u.Count(); n != 1 {
		t.Errorf("%d users, want 1", n)
	}
}

func TestAdministratorIsSeenToComeAndGo(t *testing.T) {
	u := testUsers(t, newMapStore())
	for _, step := range []struct {
		do   func() error
		want bool
	}{
		{func() error { return nil }, false},
		{func() error { return u.Add(t.Context(), "grace", "12345678", false, t0) }, false},
		{func() error { return u.Add(t.Context(), "ada", "12345678", true, t0) }, true},
		{func() error { return u.Remove(t.Context(), "ada") }, false},
	} {
		must(t, step.do())
		if u.HasAdmin() != step.want {
			t.Errorf("an administrator: %v, with %v", u.HasAdmin(), u.List())
		}
	}
}

func TestOfTwoConcurrentAddsOneWins(t *testing.T) {
	store := newMapStore()
	a, b := testUsers(t, store), testUsers(t, store)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, u := range []*Users{a, b} {
		wg.Go(func() { errs[i] = u.Add(t.Context(), "alice", "password-"+string(rune('0'+i)), false, t0) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("errors %v and %v: exactly one must win", errs[0], errs[1])
	}
}

func TestAnotherNodeSeesAChangeWhenToldOfIt(t *testing.T) {
	store := newMapStore()
	a, b := testUsers(t, store), testUsers(t, store)
	must(t, a.Add(t.Context(), "alice", "password-1", false, t0))
	_, err := b.Verify(t.Context(), "alice", "password-1")
	wantError(t, err, ErrCredentials)
	must(t, b.Changed(t.Context(), "alice"))
	_, err = b.Verify(t.Context(), "alice", "password-1")
	must(t, err)

	must(t, a.SetPassword(t.Context(), "ALICE", "password-2", t0.Add(time.Hour)))
	must(t, b.Reload(t.Context()))
	_, err = b.Verify(t.Context(), "alice", "password-1")
	wantError(t, err, ErrCredentials)
	got, err := b.Verify(t.Context(), "alice", "password-2")
	must(t, err)
	if !got.Created.Equal(t0) || !got.PasswordChanged.Equal(t0.Add(time.Hour)) {
		t.Errorf("times %v, %v", got.Created, got.PasswordChanged)
	}

	must(t, a.Remove(t.Context(), "alice"))
	must(t, b.Changed(t.Context(), "alice"))
	if _, ok := b.Lookup("alice"); ok {
		t.Error("removed user is still there")
	}
}

func TestChangesOfMissingUsersAreNotFound(t *testing.T) {
	u := testUsers(t, newMapStore())
	wantError(t, u.Remove(t.Context(), "nobody"), ErrNotFound)
	wantError(t, u.Remove(t.Context(), "no\nbody"), ErrNotFound)
	wantError(t, u.SetPassword(t.Context(), "nobody", "12345678", t0), ErrNotFound)
	wantError(t, u.SetPassword(t.Context(), "nobody", "short", t0), ErrPassword)
}

func TestListIsSortedWithoutRegardToCase(t *testing.T) {
	u := testUsers(t, newMapStore())
	for _, name := range []string{"carol", "Bob", "alice"} {
		must(t, u.Add(t.Context(), name, "12345678", false, t0))
	}
	var names []string
	for _, user := range u.List() {
		names = append(names, user.Name)
	}
	if got := strings.Join(names, " "); got != "alice Bob carol" {
		t.Errorf("got %q", got)
	}
}

func TestDamagedUserRecordIsReportedByName(t *testing.T) {
	for _, text := range []string{"{", `{"name":"bob","password":"x"}`, `{"name":"alice","password":"$argon2id$v=19$m=99999999,t=3,p=4$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"}`} {
		store := newMapStore()
		store.put(BucketUsers, "alice", text)
		_, err := openUsers(t.Context(), store, cheap)
		if err == nil || !strings.Contains(err.Error(), `users record "alice" is damaged`) || !strings.Contains(err.Error(), "copy users.json.bak over that") {
			t.Errorf("%s: error %v", text, err)
		}
	}
}

func TestStoreFaultIsAnErrorAndChangesNothing(t *testing.T) {
	store := newMapStore()
	u := testUsers(t, store)
	must(t, u.Add(t.Context(), "alice", "12345678", false, t0))
	store.down = true
	wantError(t, u.Add(t.Context(), "bob", "12345678", false, t0), errStore)
	wantError(t, u.Reload(t.Context()), errStore)
	wantError(t, u.Changed(t.Context(), "alice"), errStore)
	if _, err := u.Verify(t.Context(), "alice", "12345678"); err != nil {
		t.Errorf("login without the store: %v", err)
	}
}

func TestVerifyRefusesAPasswordThatWasChangedMeanwhile(t *testing.T) {
	store := newMapStore()
	u := testUsers(t, store)
	must(t, u.Add(t.Context(), "alice", "password-1", false, t0))
	must(t, u.hasher.acquire(t.Context()))
	must(t, u.hasher.acquire(t.Context())) // the login below has to wait

	done := make(chan error)
	go func() {
		_, err := u.Verify(t.Context(), "alice", "password-1")
		done <- err
	}()
	waitFor(t, func() bool { return u.hasher.queued.Load() == 1 })
	other := testUsers(t, store)
	must(t, other.SetPassword(t.Context(), "alice", "password-2", t0))
	must(t, u.Changed(t.Context(), "alice"))
	u.hasher.release()
	wantError(t, <-done, ErrCredentials)
	u.hasher.release()
}

// waitFor polls until a condition holds.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("condition does not come true")
		}
	}
}

func TestStaleReadDoesNotUndoANewerOne(t *testing.T) {
	store := newMapStore()
	store.put("b", "k", "old")
	c := newCache(store, "b", func(_ string, v []byte) (string, error) { return string(v), nil })
	must(t, c.reloadAll(context.Background()))
	early := c.begin() // a read that has seen "old" and is slow
	store.put("b", "k", "new")
	must(t, c.reload(context.Background(), "k"))
	old := "old"
	c.end(early, map[string]*string{"k": &old})
	if got, _ := c.get("k"); got != "new" {
		t.Errorf("got %q, want new", got)
	}
	if len(c.applied) != 0 {
		t.Errorf("%d numbers kept though no read runs", len(c.applied))
	}
}

func FuzzUserName(f *testing.F) {
	for _, s := range []string{"alice", "A.b-c_d@e", "", "a b", "é", "a\x00", strings.Repeat("x", 65)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !ValidUserName(name) {
			return
		}
		folded := foldName(name)
		if !ValidUserName(folded) || len(folded) != len(name) || foldName(folded) != folded {
			t.Errorf("%q folds to %q", name, folded)
		}
		if strings.ContainsAny(name, "/\\: \t\r\n\"'<>&%") {
			t.Errorf("%q has a character that means something elsewhere", name)
		}
	})
}
