package auth

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func testKeys(t testing.TB, store Store) *Keys {
	t.Helper()
	k, err := OpenKeys(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyIsKnownByItsSecretUntilItIsRemoved(t *testing.T) {
	store := newMapStore()
	k := testKeys(t, store)
	id, secret, err := k.Add(t.Context(), "shop back end", t0)
	must(t, err)
	got, err := testKeys(t, store).Authenticate(JoinKey(id, secret))
	must(t, err)
	if want := (Key{ID: id, Name: "shop back end", Created: t0}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", ".", id, id + ".", id + "." + secret[1:], "." + secret, JoinKey(id, secret) + "x"} {
		_, err := k.Authenticate(bad)
		wantError(t, err, ErrKey)
	}
	must(t, k.Remove(t.Context(), id))
	_, err = k.Authenticate(JoinKey(id, secret))
	wantError(t, err, ErrKey)
	wantError(t, k.Remove(t.Context(), id), ErrNotFound)
}

func TestKeysAreBoundedAndNamed(t *testing.T) {
	k := testKeys(t, newMapStore())
	for _, bad := range []string{"", "a\nb", "\xff", strings.Repeat("x", 65)} {
		_, _, err := k.Add(t.Context(), bad, t0)
		wantError(t, err, ErrKeyName)
	}
	for range maxKeys {
		_, _, err := k.Add(t.Context(), "key", t0)
		must(t, err)
	}
	_, _, err := k.Add(t.Context(), "one too many", t0)
	wantError(t, err, ErrTooManyKeys)
	if n := len(k.List()); n != maxKeys {
		t.Errorf("%d keys listed", n)
	}
}

func TestMintedTokenVerifies(t *testing.T) {
	store := newMapStore()
	k := testKeys(t, store)
	first, _, err := k.Add(t.Context(), "first", t0)
	must(t, err)
	second, secret, err := k.Add(t.Context(), "second", t0.Add(time.Second))
	must(t, err)
	want := RoomToken{Subject: "u-17", Name: "Zoë", Room: "R", Expires: t0.Add(time.Hour).Truncate(time.Second)}

	for _, c := range []struct{ ask, by string }{{"", second}, {first, first}, {second, second}} {
		text, err := k.Mint(c.ask, want, t0)
		must(t, err)
		got, err := testKeys(t, store).Verify(text, t0)
		must(t, err)
		if got.ID == "" || got.Key != c.by || !got.Expires.Equal(want.Expires) {
			t.Errorf("got %+v", got)
		}
		got.ID, got.Key, got.Expires = "", "", want.Expires
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		_, err = k.Verify(text, want.Expires)
		wantError(t, err, ErrToken)
		wantError(t, err, ErrExpired)
	}
	text, err := MintWith(second, secret, want, t0)
	must(t, err)
	_, err = k.Verify(text, t0)
	must(t, err)
	must(t, k.Remove(t.Context(), second))
	_, err = k.Verify(text, t0)
	wantError(t, err, ErrToken)
	_, err = k.Mint(second, want, t0)
	wantError(t, err, ErrKey)
}

func TestMintRefusesWhatWouldNotVerify(t *testing.T) {
	k := testKeys(t, newMapStore())
	_, err := k.Mint("", RoomToken{Subject: "u", Room: "r", Expires: t0}, t0)
	wantError(t, err, ErrKey)
	_, _, err = k.Add(t.Context(), "key", t0)
	must(t, err)
	for _, bad := range []RoomToken{
		{Room: "r"}, {Subject: "u"}, {Subject: "u", Room: strings.Repeat("r", 65)},
		{Subject: strings.Repeat("u", 129), Room: "r"}, {Subject: "u\n", Room: "r"}, {Subject: "u", Room: "r", Name: "\x7f"},
	} {
		bad.Expires = t0.Add(time.Hour)
		_, err := k.Mint("", bad, t0)
		wantError(t, err, ErrToken)
	}
}

// sign makes a token as another program would.
func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for name, value := range header {
		token.Header[name] = value
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTokensOfOtherPrograms(t *testing.T) {
	store := newMapStore()
	k := testKeys(t, store)
	_, _, err := k.Add(t.Context(), "other", t0)
	must(t, err)
	id, secret, err := k.Add(t.Context(), "key", t0)
	must(t, err)
	hs := []byte(secret)
	kid := map[string]any{"kid": id}
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "u", "room": "r", "exp": t0.Add(time.Hour).Unix()}
		if change != nil {
			change(c)
		}
		return c
	}
	for _, c := range []struct {
		name, token string
		good        bool
	}{
		{"with kid", sign(t, jwt.SigningMethodHS256, hs, kid, claims(nil)), true},
		{"without kid", sign(t, jwt.SigningMethodHS256, hs, nil, claims(nil)), true},
		{"without kid, expired", sign(t, jwt.SigningMethodHS256, hs, nil, claims(func(c jwt.MapClaims) { c["exp"] = t0.Unix() })), false},
		{"kid of nobody", sign(t, jwt.SigningMethodHS256, hs, map[string]any{"kid": "x"}, claims(nil)), false},
		{"kid is a number", sign(t, jwt.SigningMethodHS256, hs, map[string]any{"kid": 7}, claims(nil)), false},
		{"no exp", sign(t, jwt.SigningMethodHS256, hs, kid, claims(func(c jwt.MapClaims) { delete(c, "exp") })), false},
		{"exp is text", sign(t, jwt.SigningMethodHS256, hs, kid, claims(func(c jwt.MapClaims) { c["exp"] = "never" })), false},
		{"not yet", sign(t, jwt.SigningMethodHS256, hs, kid, claims(func(c jwt.MapClaims) { c["nbf"] = t0.Add(time.Minute).Unix() })), false},
		{"no sub", sign(t, jwt.SigningMethodHS256, hs, kid, claims(func(c jwt.MapClaims) { delete(c, "sub") })), false},
		{"no room", sign(t, jwt.SigningMethodHS256, hs, kid, claims(func(c jwt.MapClaims) { delete(c, "room") })), false},
		{"long room", sign(t, jwt.SigningMethodHS256, hs, kid, claims(func(c jwt.MapClaims) { c["room"] = strings.Repeat("r", 65) })), false},
		{"room of signaling's own", sign(t, jwt.SigningMethodHS256, hs, kid, claims(func(c jwt.MapClaims) { c["room"] = "@r" })), false},
		{"critical extension", sign(t, jwt.SigningMethodHS256, hs, map[string]any{"kid": id, "crit": []string{"x"}, "x": 1}, claims(nil)), false},
		{"HS512", sign(t, jwt.SigningMethodHS512, hs, kid, claims(nil)), false},
		{"none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid, claims(nil)), false},
		{"wrong secret", sign(t, jwt.SigningMethodHS256, []byte("x"), kid, claims(nil)), false},
		{"empty secret", sign(t, jwt.SigningMethodHS256, []byte{}, nil, claims(nil)), false},
		{"long", sign(t, jwt.SigningMethodHS256, hs, kid, claims(func(c jwt.MapClaims) { c["x"] = strings.Repeat("x", 5000) })), false},
		{"empty", "", false},
		{"dots", "..", false},
	} {
		got, err := k.Verify(c.token, t0)
		if c.good {
			if err != nil || got.Subject != "u" || got.Room != "r" || got.Key != id || got.ID == "" {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: accepted", c.name)
		}
		wantError(t, err, ErrToken)
	}
}

func FuzzRoomToken(f *testing.F) {
	store := newMapStore()
	text, err := json.Marshal(keyRecord{ID: "0123456789abcdef", Name: "key", Secret: "secret"})
	if err != nil {
		f.Fatal(err)
	}
	store.put(BucketKeys, "0123456789abcdef", string(text))
	k := testKeys(f, store)
	good, err := k.Mint("", RoomToken{Subject: "u", Room: "r", Expires: t0.Add(time.Hour)}, t0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(sign(f, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, jwt.MapClaims{"sub": "u", "room": "r", "exp": t0.Unix() + 60}))
	f.Add("eyJhbGciOiJIUzI1NiJ9.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		got, err := k.Verify(token, t0)
		if err == nil && (got.Subject == "" || got.Room == "" || got.Key == "" || got.ID == "" || !got.Expires.After(t0)) {
			t.Errorf("%q read as %+v", token, got)
		}
	})
}
