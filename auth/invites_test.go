package auth

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func testInvites(t testing.TB, store Store) *Invites {
	t.Helper()
	i, err := OpenInvites(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func terms(change func(*InviteTerms)) InviteTerms {
	t := InviteTerms{Room: "tea", By: "ada", TTL: time.Hour, Uses: 2}
	if change != nil {
		change(&t)
	}
	return t
}

func TestInviteOpensItsRoomAsOftenAndAsLongAsItSays(t *testing.T) {
	store := newMapStore()
	i := testInvites(t, store)
	made, token, err := i.Add(t.Context(), terms(nil), t0)
	must(t, err)
	if made.Room != "tea" || made.By != "ada" || made.Uses != 2 || made.Used != 0 || !made.Until.Equal(t0.Add(time.Hour)) {
		t.Errorf("made %+v", made)
	}
	for _, text := range store.records[BucketInvites] {
		if strings.Contains(string(text), token) {
			t.Error("the token is stored")
		}
	}
	other := testInvites(t, store) // another node
	for n := 1; n <= 2; n++ {
		used, err := other.Use(t.Context(), token, t0)
		must(t, err)
		if used.Used != n || used.UsedUp() != (n == 2) {
			t.Errorf("use %d: %+v", n, used)
		}
	}
	_, err = i.Use(t.Context(), token, t0)
	wantError(t, err, ErrInviteUsed)
	must(t, i.Changed(t.Context(), made.ID))
	if seen, ok := i.Known(token, t0); !ok || !seen.UsedUp() {
		t.Errorf("after the news: %+v %v", seen, ok)
	}
	if _, ok := i.Lookup(made.ID, made.Until.Add(-1)); !ok {
		t.Error("used up, it does not hold its guests to the end")
	}
	if _, ok := i.Lookup(made.ID, made.Until); ok {
		t.Error("it outlives its end")
	}
	_, err = i.Find(t.Context(), token, made.Until)
	wantError(t, err, ErrInvite)
	_, err = i.Use(t.Context(), token, made.Until)
	wantError(t, err, ErrInvite)
	if life := store.lives[BucketInvites+"/"+made.ID]; life != time.Hour {
		t.Errorf("stored for %v", life)
	}
	if left := i.List(made.Until); len(left) != 0 || len(i.cache.all()) != 0 {
		t.Errorf("after its end %+v is listed", left)
	}
}

func TestWrongLinksAreNobodysInvites(t *testing.T) {
	store := newMapStore()
	i := testInvites(t, store)
	made, token, err := i.Add(t.Context(), terms(nil), t0)
	must(t, err)
	for _, bad := range []string{"", token[1:], token + "A", strings.ToLower(token) + "x", made.ID, strings.Repeat("x", 1<<20)} {
		_, err := i.Find(t.Context(), bad, t0)
		wantError(t, err, ErrInvite)
		_, err = i.Use(t.Context(), bad, t0)
		wantError(t, err, ErrInvite)
	}
	if n := len(i.cache.all()); n != 1 {
		t.Errorf("%d invites in memory", n)
	}
	// An invite that another node has just made is found, though no news of it has come.
	_, fresh, err := testInvites(t, store).Add(t.Context(), terms(nil), t0)
	must(t, err)
	if _, ok := i.Known(fresh, t0); ok {
		t.Error("known without the store")
	}
	_, err = i.Find(t.Context(), fresh, t0)
	must(t, err)
}

func TestGuestsAtOneTimeAreCounted(t *testing.T) {
	store := newMapStore()
	a, b := testInvites(t, store), testInvites(t, store)
	_, token, err := a.Add(t.Context(), terms(func(t *InviteTerms) { t.Uses = 5 }), t0)
	must(t, err)
	var in, out atomic.Int32
	var wait sync.WaitGroup
	for n := range 20 {
		i := []*Invites{a, b}[n%2]
		wait.Go(func() {
			switch _, err := i.Use(t.Context(), token, t0); {
			case err == nil:
				in.Add(1)
			case errors.Is(err, ErrInviteUsed):
				out.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if in.Load() != 5 || out.Load() != 15 {
		t.Errorf("%d let in, %d refused", in.Load(), out.Load())
	}
}

func TestInvitesHaveBounds(t *testing.T) {
	i := testInvites(t, newMapStore())
	for name, bad := range map[string]func(*InviteTerms){
		"no room":       func(t *InviteTerms) { t.Room = "" },
		"a user's room": func(t *InviteTerms) { t.Room = "@user/ada" },
		"a long room":   func(t *InviteTerms) { t.Room = strings.Repeat("r", 65) },
		"control":       func(t *InviteTerms) { t.Room = "a\nb" },
		"no text":       func(t *InviteTerms) { t.Room = "\xff" },
		"no time":       func(t *InviteTerms) { t.TTL = 0 },
		"for ever":      func(t *InviteTerms) { t.TTL = MaxInviteTTL + 1 },
		"no use":        func(t *InviteTerms) { t.Uses = 0 },
		"any use":       func(t *InviteTerms) { t.Uses = MaxInviteUses + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := i.Add(t.Context(), terms(bad), t0)
			wantError(t, err, ErrInviteTerms)
		})
	}
	for range maxInvitesBy {
		_, _, err := i.Add(t.Context(), terms(nil), t0)
		must(t, err)
	}
	_, _, err := i.Add(t.Context(), terms(nil), t0)
	wantError(t, err, ErrTooManyInvites)
	_, _, err = i.Add(t.Context(), terms(func(t *InviteTerms) { t.By = "bob" }), t0)
	must(t, err)
	_, _, err = i.Add(t.Context(), terms(nil), t0.Add(2*time.Hour)) // the others have ended
	must(t, err)
}

func TestRemovedInviteIsGoneAndItsGuestsAreRevoked(t *testing.T) {
	store := newMapStore()
	i, s := testInvites(t, store), testSessions(t, store)
	made, token, err := i.Add(t.Context(), terms(nil), t0)
	must(t, err)
	stays, _, err := i.Add(t.Context(), terms(nil), t0)
	must(t, err)
	removed, err := i.Remove(t.Context(), made.ID)
	must(t, err)
	must(t, s.RevokeInvite(t.Context(), removed, t0))
	_, err = i.Find(t.Context(), token, t0)
	wantError(t, err, ErrInvite)
	_, err = i.Remove(t.Context(), made.ID)
	wantError(t, err, ErrNotFound)
	if !s.Revoked("anybody", InviteSession(made.ID), t0) || s.Revoked("anybody", InviteSession(stays.ID), t0) {
		t.Error("not the guests of this invite alone are revoked")
	}
}

func TestGuestIsWhatTheCookieSays(t *testing.T) {
	s := testSessions(t, newMapStore())
	g, err := NewGuest("0123456789abcdef", " Zoë: the 1st ")
	must(t, err)
	until := t0.Add(3 * time.Hour)
	value, _ := s.IssueUntil(g.SessionUser(), t0, until)
	session, err := s.Verify(value, until.Add(-1))
	must(t, err)
	got, ok := ParseGuest(session.User)
	if !ok || got != g || got.Name != "Zoë: the 1st" || got.Invite != "0123456789abcdef" {
		t.Errorf("got %+v, want %+v", got, g)
	}
	_, err = s.Verify(value, until)
	wantError(t, err, ErrExpired)
	if ValidUserName(g.User()) || ValidUserName(g.SessionUser()) {
		t.Error("a user could have that name")
	}
	for _, bad := range []string{"", " ", "\x00", "a\nb", "\xff", strings.Repeat("x", 129)} {
		_, err := NewGuest("0123456789abcdef", bad)
		wantError(t, err, ErrGuestName)
	}
	for _, other := range []string{"ada", "guest", "guest:", "guest:a:b", "Guest:a:b:c"} {
		if _, ok := ParseGuest(other); ok {
			t.Errorf("%q is a guest", other)
		}
	}
	long, err := NewGuest("0123456789abcdef", strings.Repeat("ä", 64))
	must(t, err)
	value, _ = s.IssueUntil(long.SessionUser(), t0, until)
	_, err = s.Verify(value, t0)
	must(t, err)
}

func TestGuestWhoLeavesIsRevokedAlone(t *testing.T) {
	s := testSessions(t, newMapStore())
	g, err := NewGuest("0123456789abcdef", "Zoë")
	must(t, err)
	value, session := s.IssueUntil(g.SessionUser(), t0, t0.Add(time.Hour))
	must(t, s.RevokeGuest(t.Context(), session, "owner", t0))
	_, err = s.Verify(value, t0)
	wantError(t, err, ErrRevoked)
	if !s.Revoked("owner", InviteSession(g.Invite), t0) || s.Revoked("another", InviteSession(g.Invite), t0) {
		t.Error("not this guest alone is revoked")
	}
}

func FuzzInviteRecord(f *testing.F) {
	token := "AAAAAAAAAAAAAAAAAAAAAA"
	id, hash := inviteKey(token)
	f.Add(id, fmt.Appendf(nil, `{"hash":%q,"room":"r","until":"2030-01-01T00:00:00Z","uses":1}`, hash))
	f.Add("", []byte("null"))
	f.Fuzz(func(t *testing.T, key string, text []byte) {
		r, err := decodeInvite(key, text)
		if err == nil && len(key) != 16 {
			t.Errorf("%q is the key of %+v", key, r)
		}
	})
}
