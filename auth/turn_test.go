package auth

import (
	"bytes"
	"crypto/md5"
	"strings"
	"testing"
	"time"
)

func testTURN() TURN {
	return TURN{Secrets: [][]byte{[]byte("new secret"), []byte("old secret")}, Realm: "callbox"}
}

func TestCredentialVerifiesWithEverySecretNewestFirst(t *testing.T) {
	turn := testTURN()
	username, password, expires := turn.Credential("handle", time.Hour, t0)
	if username != "1773504566:handle" || !expires.Equal(t0.Add(time.Hour).Truncate(time.Second)) {
		t.Errorf("username %s, expires %v", username, expires)
	}
	keys, user, session, err := turn.Keys(username, "callbox", true, t0)
	must(t, err)
	want := md5.Sum([]byte(username + ":callbox:" + password))
	if len(keys) != 2 || !bytes.Equal(keys[0], want[:]) || bytes.Equal(keys[0], keys[1]) {
		t.Errorf("keys %x, want %x first of two", keys, want)
	}
	if user != "handle" || session != "" {
		t.Errorf("tags %q, %q", user, session)
	}
	old := TURN{Secrets: turn.Secrets[1:], Realm: "callbox"}
	oldKeys, _, _, err := old.Keys(username, "callbox", true, t0)
	must(t, err)
	if !bytes.Equal(oldKeys[0], keys[1]) {
		t.Error("the old secret's key is not among the keys")
	}
}

// The value was computed with: printf 1773504566:alice | openssl dgst -sha1 -hmac 'new secret' -binary | base64
func TestPasswordIsWhatOtherProgramsCompute(t *testing.T) {
	_, password, _ := testTURN().Credential("alice", time.Hour, t0)
	if password != "KqceEsEcPPTpsiUAnGVQKJHcz7U=" {
		t.Errorf("got %s", password)
	}
}

func TestExpiryAndRevocationCountAtAllocationOnly(t *testing.T) {
	turn := testTURN()
	username, _, expires := turn.Credential("handle", time.Hour, t0)
	_, _, _, err := turn.Keys(username, "callbox", true, expires.Add(-1))
	must(t, err)
	_, _, _, err = turn.Keys(username, "callbox", true, expires)
	wantError(t, err, ErrExpired)
	_, _, _, err = turn.Keys(username, "callbox", false, expires.Add(time.Hour))
	must(t, err)

	turn.Revoked = func(user, _ string, _ time.Time) bool { return user == "handle" }
	_, _, _, err = turn.Keys(username, "callbox", true, t0)
	wantError(t, err, ErrRevoked)
	_, _, _, err = turn.Keys(username, "callbox", false, t0)
	must(t, err)
}

func TestMalformedTURNUsernamesAndForeignRealms(t *testing.T) {
	turn := testTURN()
	for _, bad := range []string{"", ":", "alice", ":alice", "-1:alice", "+1:alice", "1e9:alice", " 1:alice", "999999999999:alice", "9999999999:" + strings.Repeat("x", 498)} {
		_, _, _, err := turn.Keys(bad, "callbox", true, t0)
		wantError(t, err, ErrUsername)
	}
	for _, good := range []string{"9999999999", "9999999999:", "9999999999:a:b", "9999999999:é", "09999999999:x"} {
		if _, _, _, err := turn.Keys(good, "callbox", true, t0); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	_, _, _, err := turn.Keys("9999999999:alice", "elsewhere", true, t0)
	wantError(t, err, ErrRealm)
}

func TestHandleTellsNothingAndSplitsAgain(t *testing.T) {
	id := NewSessionID(t0)
	handle := Handle(masterSecret, "Alice", id)
	user, session := parseHandle(handle)
	if user != UserTag(masterSecret, "alice") || session != SessionTag(masterSecret, id) || len(user) != 12 {
		t.Errorf("handle %s splits into %s, %s", handle, user, session)
	}
	if strings.Contains(strings.ToLower(handle), "alice") || strings.Contains(handle, id) {
		t.Errorf("handle %s says whose it is", handle)
	}
	if UserTag([]byte("another"), "alice") == user || UserTag(masterSecret, "bob") == user {
		t.Error("tags of others are the same")
	}
	if at, ok := sessionTagTime(session); !ok || !at.Equal(t0) {
		t.Errorf("session tag says %v, %v", at, ok)
	}
	if _, session := parseHandle(Handle(masterSecret, "key/u", "jti")); session != SessionTag(masterSecret, "jti") {
		t.Errorf("session tag of a token is %q", session)
	}
}

func TestRevokedHandles(t *testing.T) {
	s := testSessions(t, newMapStore())
	_, one := s.Issue("alice", t0)
	_, two := s.Issue("alice", t0)
	revoked := func(user, session string, now time.Time) bool {
		u, id := parseHandle(Handle(masterSecret, user, session))
		return s.RevokedHandle(u, id, now)
	}
	must(t, s.Revoke(t.Context(), one, t0))
	if !revoked("alice", one.ID, t0) || revoked("alice", two.ID, t0) {
		t.Error("not exactly the one session is revoked")
	}
	must(t, s.RevokeUser(t.Context(), "alice", t0.Add(time.Minute)))
	_, three := s.Issue("alice", t0.Add(time.Hour))
	now := t0.Add(2 * time.Hour)
	if !revoked("alice", two.ID, now) || !revoked("alice", "no session id", now) || revoked("alice", three.ID, now) || revoked("bob", two.ID, now) {
		t.Error("not exactly the user's earlier sessions are revoked")
	}
	if u, id := parseHandle(Handle(masterSecret, "alice", two.ID)); !s.RevokedHandle(u, id, t0.Add(MaxHandleLife)) {
		t.Error("the revocation is forgotten while a credential may live")
	}
	if s.RevokedHandle("a handle of another program", "", now) {
		t.Error("a foreign handle is revoked")
	}
}

func FuzzTURNUsername(f *testing.F) {
	for _, s := range []string{"9999999999:alice", "1:", ":", "9999999999:" + Handle(masterSecret, "a", "b"), "9999999999:AAAAAAAAAAAA.AAAAAAAAAAAA"} {
		f.Add(s)
	}
	turn := testTURN()
	f.Fuzz(func(t *testing.T, username string) {
		keys, user, session, err := turn.Keys(username, "callbox", true, t0)
		if err != nil {
			return
		}
		handle := user
		if session != "" {
			handle += "." + session
		}
		if _, want, _ := strings.Cut(username, ":"); want != handle || len(keys) != 2 {
			t.Errorf("%q: tags %q, %q, %d keys", username, user, session, len(keys))
		}
	})
}
