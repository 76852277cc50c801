package auth

import (
	"strings"
	"testing"
	"time"
)

func testExternals(t *testing.T, store Store) *Externals {
	t.Helper()
	e, err := OpenExternals(t.Context(), store)
	must(t, err)
	return e
}

func TestExternalUserIsTheAccountAndNotTheName(t *testing.T) {
	store := newMapStore()
	e := testExternals(t, store)
	ada := Identity{Issuer: "https://id.example", Subject: "1", Name: "Ada", Display: "Ada Lovelace"}
	first, err := e.LogIn(t.Context(), ada, t0)
	must(t, err)
	if want := (External{Name: "oidc:Ada", Display: "Ada Lovelace", Created: t0, Seen: t0}); first != want {
		t.Errorf("got %+v, want %+v", first, want)
	}
	if ValidUserName(first.Name) || !IsExternal(first.Name) {
		t.Errorf("%s could be a user's name here", first.Name)
	}
	for name, thief := range map[string]Identity{
		"another account":  {Issuer: ada.Issuer, Subject: "2", Name: "Ada"},
		"in another case":  {Issuer: ada.Issuer, Subject: "2", Name: "aDA"},
		"another provider": {Issuer: "https://other.example", Subject: "1", Name: "ada"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.LogIn(t.Context(), thief, t0)
			wantError(t, err, ErrExternalTaken)
		})
	}
	// The same account once more: written only where there is something new.
	before := store.written()
	_, err = e.LogIn(t.Context(), ada, t0.Add(time.Minute))
	must(t, err)
	if store.written() != before {
		t.Error("each login is written")
	}
	again, err := testExternals(t, store).LogIn(t.Context(), Identity{Issuer: ada.Issuer, Subject: "1", Name: "ada", Display: "\x00"}, t0.Add(2*time.Hour))
	must(t, err)
	if want := (External{Name: "oidc:Ada", Display: "Ada", Created: t0, Seen: t0.Add(2 * time.Hour)}); again != want {
		t.Errorf("got %+v, want %+v", again, want)
	}
	if all := e.List(); len(all) != 1 {
		t.Errorf("listed %+v", all)
	}
	must(t, e.Remove(t.Context(), "oidc:ADA"))
	if _, ok := e.Lookup(first.Name); ok {
		t.Error("a removed user is found")
	}
	wantError(t, e.Remove(t.Context(), "oidc:ada"), ErrNotFound)
	wantError(t, e.Remove(t.Context(), "ada"), ErrNotFound)
	// Now the name is free.
	_, err = e.LogIn(t.Context(), Identity{Issuer: ada.Issuer, Subject: "2", Name: "Ada"}, t0)
	must(t, err)
}

func TestNamesFromTheProviderHaveBounds(t *testing.T) {
	e := testExternals(t, newMapStore())
	for _, good := range []string{"a", "ada@x.example", "ada+call@x.example", "x#EXT#@y", strings.Repeat("x", 64)} {
		_, err := e.LogIn(t.Context(), Identity{Issuer: "i", Subject: good, Name: good}, t0)
		must(t, err)
	}
	for _, bad := range []string{"", "a b", "a:b", "zoë", "a\x00", "a\x7f", strings.Repeat("x", 65)} {
		_, err := e.LogIn(t.Context(), Identity{Issuer: "i", Subject: "s", Name: bad}, t0)
		wantError(t, err, ErrExternalName)
	}
	for _, subject := range []string{"", strings.Repeat("s", 256)} {
		_, err := e.LogIn(t.Context(), Identity{Issuer: "i", Subject: subject, Name: "new"}, t0)
		wantError(t, err, ErrExternalName)
	}
}

func TestOnlyWhatWasSealedForThePurposeOpens(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	seal := func(secret []byte, purpose string) *Sealer {
		s, err := NewSealer(secret, purpose)
		must(t, err)
		return s
	}
	a := seal(secret, "a")
	text := a.Seal([]byte("hello"))
	if text == a.Seal([]byte("hello")) || strings.Contains(text, "hello") {
		t.Error("it is not encrypted anew")
	}
	got, err := seal(secret, "a").Open(text) // another node
	must(t, err)
	if string(got) != "hello" {
		t.Errorf("got %q", got)
	}
	for name, bad := range map[string]func() ([]byte, error){
		"another purpose": func() ([]byte, error) { return seal(secret, "b").Open(text) },
		"another secret":  func() ([]byte, error) { return seal([]byte("another"), "a").Open(text) },
		"changed":         func() ([]byte, error) { return a.Open("A" + text[1:] + "A") },
		"cut":             func() ([]byte, error) { return a.Open(text[:8]) },
		"empty":           func() ([]byte, error) { return a.Open("") },
		"no base64":       func() ([]byte, error) { return a.Open("%%%") },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bad()
			wantError(t, err, ErrSealed)
		})
	}
}
