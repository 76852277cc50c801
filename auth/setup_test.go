package auth

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestSetupLinkMakesTheFirstUserOnce(t *testing.T) {
	store := newMapStore()
	u, setup := testUsers(t, store), NewSetup(store)
	token, err := setup.Issue(t.Context(), t0)
	must(t, err)
	must(t, setup.Valid(t.Context(), token, t0))
	must(t, u.AddFirst(t.Context(), setup, token, "alice", "12345678", t0.Add(time.Minute)))
	if user, ok := u.Lookup("alice"); !ok || !user.Admin {
		t.Errorf("first user: %+v, %v", user, ok)
	}
	wantError(t, u.AddFirst(t.Context(), setup, token, "mallory", "12345678", t0.Add(2*time.Minute)), ErrSetup)
	wantError(t, setup.Valid(t.Context(), token, t0.Add(2*time.Minute)), ErrSetup)
}

func TestSetupLinkIsRefused(t *testing.T) {
	store := newMapStore()
	u, setup := testUsers(t, store), NewSetup(store)
	token, err := setup.Issue(t.Context(), t0)
	must(t, err)
	for name, c := range map[string]struct {
		token string
		now   time.Time
	}{
		"after 30 minutes": {token, t0.Add(SetupTTL)},
		"wrong":            {encode(random(16)), t0},
		"empty":            {"", t0},
		"the guard's key":  {setupGuard, t0},
	} {
		if err := u.AddFirst(t.Context(), setup, c.token, "alice", "12345678", c.now); !errors.Is(err, ErrSetup) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if u.Count() != 0 {
		t.Error("a user was made")
	}
}

func TestSetupLinkSurvivesAFailedTry(t *testing.T) {
	store := newMapStore()
	u, setup := testUsers(t, store), NewSetup(store)
	token, err := setup.Issue(t.Context(), t0)
	must(t, err)
	wantError(t, u.AddFirst(t.Context(), setup, token, "alice", "short", t0), ErrPassword)
	wantError(t, u.AddFirst(t.Context(), setup, token, "a b", "12345678", t0), ErrName)
	wantError(t, setup.Redeem(t.Context(), token, t0, func() error { return errStore }), errStore)
	must(t, u.AddFirst(t.Context(), setup, token, "alice", "12345678", t0))
}

func TestSetupLinkIsOfNoUseOnceThereIsAUser(t *testing.T) {
	store := newMapStore()
	u, setup := testUsers(t, store), NewSetup(store)
	token, err := setup.Issue(t.Context(), t0)
	must(t, err)
	must(t, testUsers(t, store).Add(t.Context(), "bob", "12345678", false, t0)) // by another node
	wantError(t, u.AddFirst(t.Context(), setup, token, "alice", "12345678", t0), ErrSetup)
}

func TestOfTwoSetupLinksOneWorks(t *testing.T) {
	store := newMapStore()
	setup := NewSetup(store)
	var made atomic.Int32
	var wg sync.WaitGroup
	for _, name := range []string{"alice", "bob", "carol"} {
		u := testUsers(t, store)
		token, err := setup.Issue(t.Context(), t0)
		must(t, err)
		wg.Go(func() {
			switch err := u.AddFirst(t.Context(), setup, token, name, "12345678", t0); {
			case err == nil:
				made.Add(1)
			case !errors.Is(err, ErrSetup):
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("%d first users", n)
	}
}

func TestNewSetupLinkWorksAfterAllUsersAreGone(t *testing.T) {
	store := newMapStore()
	u, setup := testUsers(t, store), NewSetup(store)
	token, err := setup.Issue(t.Context(), t0)
	must(t, err)
	must(t, u.AddFirst(t.Context(), setup, token, "alice", "12345678", t0))
	must(t, u.Remove(t.Context(), "alice"))
	later := t0.Add(5 * time.Minute)
	token, err = setup.Issue(t.Context(), later)
	must(t, err)
	must(t, u.AddFirst(t.Context(), setup, token, "alice", "12345678", later))
}
