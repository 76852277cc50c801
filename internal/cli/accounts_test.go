package cli

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callbox/auth"
	"callbox/bus"
	"callbox/internal/control"
	"callbox/internal/datadir"
)

// TestUsersAndKeys goes the same way directly and through a running server.
func TestUsersAndKeys(t *testing.T) {
	for name, serve := range map[string]bool{"directly": false, "through the server": true} {
		t.Run(name, func(t *testing.T) {
			dir := dataDir(t)
			if serve {
				startServer(t, dir)
			}
			at := func(args ...string) []string { return append(args, "--data", dir) }
			if text := ok(t, "correct horse\n", at("user", "add", "Alice", "--password-stdin")...); text != "added administrator Alice\n" { // the first
				t.Errorf("says %q", text)
			}
			if text := ok(t, "battery staple", at("user", "add", "bob", "--password-stdin")...); text != "added user bob\n" {
				t.Errorf("says %q", text)
			}
			users := decode[control.UserList](t, ok(t, "", at("user", "list", "--json")...)).Users
			if len(users) != 2 || users[0].Name != "Alice" || !users[0].Admin || users[1].Name != "bob" || users[1].Admin || users[1].Created.IsZero() {
				t.Errorf("users %+v", users)
			}
			if table := ok(t, "", at("user", "list")...); !strings.Contains(table, "\nAlice  yes ") || !strings.Contains(table, "\nbob    no ") {
				t.Errorf("table:\n%s", table)
			}
			fails(t, exitFault, "exists", at("user", "add", "alice", "--password-stdin")...)
			fails(t, exitFault, "64 letters", at("user", "add", "a b", "--password-stdin")...)
			fails(t, exitFault, "not found", at("user", "passwd", "carol", "--password-stdin")...)
			fails(t, exitFault, "not found", at("user", "remove", "carol")...)
			if r := callbox(t, "short\n", at("user", "passwd", "bob", "--password-stdin")...); r.status != exitFault || !strings.Contains(r.stderr, "8 to 1024") {
				t.Errorf("short password: %+v", r)
			}
			ok(t, "another password\n", at("user", "passwd", "bob", "--password-stdin")...)
			ok(t, "", at("user", "remove", "alice")...)

			key := decode[control.NewKey](t, ok(t, "", at("key", "add", "shop", "--json")...))
			if text := ok(t, "", at("key", "add", "other")...); !strings.Contains(text, "not shown again") {
				t.Errorf("key add: %s", text)
			}
			keys := decode[control.KeyList](t, ok(t, "", at("key", "list", "--json")...)).Keys
			if len(keys) != 2 || keys[0].ID != key.ID || keys[0].Name != "shop" {
				t.Errorf("keys %+v", keys)
			}
			if table := ok(t, "", at("key", "list")...); strings.Contains(table, key.Secret) || !strings.Contains(table, key.ID) {
				t.Errorf("table:\n%s", table)
			}
			checkTokens(t, dir, key)
			ok(t, "", at("key", "remove", key.ID)...)
			fails(t, exitFault, "not found", at("key", "remove", key.ID)...)

			checkStored(t, dir, key.ID)
		})
	}
}

func openStore(t *testing.T, dir string) *bus.Store {
	t.Helper()
	store, err := bus.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func readSecrets(t *testing.T, dir string) datadir.Secrets {
	t.Helper()
	d, err := datadir.At(dir)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := d.Secrets(datadir.SecretOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

// checkTokens makes tokens with the key and reads them as a server would.
func checkTokens(t *testing.T, dir string, key control.NewKey) {
	t.Helper()
	keys, err := auth.OpenKeys(t.Context(), openStore(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, args := range [][]string{{"--data", dir, "--key", key.ID}, {"--data", dir}, {"--key", key.Key}} {
		text := ok(t, "", append([]string{"token", "--room", "R", "--user", "u-1", "--name", "Zoë", "--ttl", "2h"}, args...)...)
		got, err := keys.Verify(strings.TrimSpace(text), now)
		if err != nil || got.Room != "R" || got.Subject != "u-1" || got.Name != "Zoë" || got.Expires.Sub(now).Round(time.Minute) != 2*time.Hour {
			t.Errorf("%q: %+v, %v", args, got, err)
		}
	}
	made := decode[struct {
		Token     string
		ExpiresAt time.Time
	}](t, ok(t, "", "token", "--room", "R", "--user", "u", "--data", dir, "--json"))
	if got, err := keys.Verify(made.Token, now); err != nil || !got.Expires.Equal(made.ExpiresAt) {
		t.Errorf("%+v, %v, expires at %v", got, err, made.ExpiresAt)
	}
	fails(t, exitFault, "no key has the id", "token", "--room", "R", "--user", "u", "--data", dir, "--key", "0123")
	fails(t, exitFault, "room must have", "token", "--room", strings.Repeat("r", 65), "--user", "u", "--data", dir)
}

// checkStored sees what the commands left on disk: bob with the second password,
// his and Alice's sessions ended, and the credentials of the removed key revoked.
func checkStored(t *testing.T, dir, key string) {
	t.Helper()
	store := openStore(t, dir)
	users, err := auth.OpenUsers(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := users.Verify(t.Context(), "bob", "battery staple"); !errors.Is(err, auth.ErrCredentials) {
		t.Errorf("old password: %v", err)
	}
	if _, err := users.Verify(t.Context(), "bob", "another password"); err != nil {
		t.Errorf("new password: %v", err)
	}
	if users.Count() != 1 {
		t.Errorf("%d users", users.Count())
	}
	secrets := readSecrets(t, dir)
	sessions, err := auth.OpenSessions(t.Context(), store, secrets.Master, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, want := range map[string]bool{"alice": true, "bob": true, "carol": false} {
		value, _ := sessions.Issue(name, now.Add(-10*time.Minute))
		if _, err := sessions.Verify(value, now); errors.Is(err, auth.ErrRevoked) != want {
			t.Errorf("session of %s from before: %v", name, err)
		}
	}
	if !sessions.RevokedHandle("", auth.SessionTag(secrets.Master, auth.KeySession(key)), now) {
		t.Error("credentials of the removed key are good")
	}
}

func TestPasswordIsAskedForTwice(t *testing.T) {
	dir := dataDir(t)
	var prompts []string
	answers := func(texts ...string) Env {
		return Env{ReadPassword: func(_ context.Context, prompt string) (string, error) {
			prompts = append(prompts, prompt)
			text := texts[0]
			texts = texts[1:]
			return text, nil
		}}
	}
	if r := runWith(t, answers("correct horse", "correct hors"), "user", "add", "alice", "--data", dir); r.status != exitFault || !strings.Contains(r.stderr, "differ") {
		t.Errorf("different: %+v", r)
	}
	if r := runWith(t, answers("correct horse", "correct horse"), "user", "add", "alice", "--data", dir); r.status != exitOK {
		t.Errorf("the same: %+v", r)
	}
	if len(prompts) != 4 {
		t.Errorf("prompts %q", prompts)
	}
	fails(t, exitUsage, "--password-stdin", "user", "add", "bob", "--data", dir)
	if r := runWith(t, answers("x"), "user", "add", "not a name", "--data", dir); r.status != exitFault || len(prompts) != 4 {
		t.Errorf("asked for the password of a bad name: %+v", r)
	}
}

func TestMissingDataDirectoryIsNotMadeByAMistypedName(t *testing.T) {
	dir := filepath.Join(dataDir(t), "missing")
	for _, args := range [][]string{{"user", "list"}, {"user", "remove", "x"}, {"user", "passwd", "x", "--password-stdin"}, {"key", "list"}, {"token", "--room", "r", "--user", "u"}, {"credential", "--user", "u"}} {
		fails(t, exitFault, "there is no data directory "+dir, append(args, "--data", dir)...)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it was made")
	}
	ok(t, "correct horse", "user", "add", "alice", "--password-stdin", "--data", dir)
}

func TestDirectoryInUseWithoutASocketIsNotTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // ten seconds of waiting
		dir := dataDir(t)
		d, err := datadir.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		fails(t, exitFault, "another callbox uses "+dir, "key", "add", "shop", "--data", dir)
	})
}

func TestCommandsAtOneTimeWaitForEachOther(t *testing.T) {
	dir := dataDir(t)
	ok(t, "", "key", "add", "first", "--data", dir)
	d, err := datadir.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make([]result, 4)
	for i := range results {
		wg.Go(func() { results[i] = callbox(t, "", "key", "add", "shop", "--data", dir) })
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for _, r := range results {
		if r.status != exitOK {
			t.Errorf("status %d, %s", r.status, r.stderr)
		}
	}
	if keys := decode[control.KeyList](t, ok(t, "", "key", "list", "--json", "--data", dir)).Keys; len(keys) != 1+len(results) {
		t.Errorf("%d keys", len(keys))
	}
}

func TestDamagedUsersFileIsReportedAndKept(t *testing.T) {
	dir := dataDir(t)
	ok(t, "correct horse", "user", "add", "alice", "--password-stdin", "--data", dir)
	path := filepath.Join(dir, "users.json")
	if err := os.WriteFile(path, []byte(`{"alice`), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, exitFault, "users.json", "user", "list", "--data", dir)
	fails(t, exitFault, "users.json", "user", "add", "bob", "--password-stdin", "--data", dir)
	fails(t, exitFault, "users.json", "serve", "--listen", "127.0.0.1:0", "--data", dir)
	if kept, err := os.ReadFile(path); err != nil || string(kept) != `{"alice` {
		t.Errorf("the file is now %q, %v", kept, err)
	}
}

func TestCredentialVerifies(t *testing.T) {
	dir := dataDir(t)
	type credential struct {
		Username, Password, Realm string
		ExpiresAt                 time.Time
	}
	made := decode[credential](t, ok(t, "", "credential", "--user", "u", "--ttl", "2h", "--data", dir, "--json"))
	secrets := readSecrets(t, dir)
	now := time.Now()
	turn := auth.TURN{Secrets: secrets.TURN, Realm: made.Realm}
	_, user, _, err := turn.Keys(made.Username, "callbox", true, now)
	if err != nil || user != auth.UserTag(secrets.Master, "u") {
		t.Errorf("user tag %s, %v", user, err)
	}
	if _, password, _ := turn.Credential(strings.SplitN(made.Username, ":", 2)[1], made.ExpiresAt.Sub(now.Truncate(time.Second)), now.Truncate(time.Second)); password != made.Password {
		t.Errorf("password %s, want %s", made.Password, password)
	}
	if d := made.ExpiresAt.Sub(now).Round(time.Minute); d != 2*time.Hour {
		t.Errorf("expires in %v", d)
	}

	file := filepath.Join(dir, "own")
	if err := os.WriteFile(file, []byte("a secret of our own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runWith(t, Env{Environ: []string{"CALLBOX_TURN_SECRET_FILE=" + file, "CALLBOX_TURN_TTL=30m", "CALLBOX_DATA=" + dir}}, "credential", "--user", "u")
	if r.status != exitOK || !strings.Contains(r.stdout, "username: ") || !strings.Contains(r.stdout, "\npassword: ") {
		t.Errorf("got %+v", r)
	}
	for _, ttl := range []string{"99999h", "10ms", "-1h"} {
		fails(t, exitUsage, "--ttl must be", "credential", "--user", "u", "--ttl="+ttl, "--data", dir)
	}
}

func TestHealthcheck(t *testing.T) {
	dir := dataDir(t)
	// Nothing can listen on port 1 of this address by chance.
	r := runWith(t, Env{Environ: []string{"CALLBOX_LISTEN=127.255.255.254:1"}}, "healthcheck", "--data", dir, "--json")
	if answer := decode[health](t, r.stdout); r.status != exitFault || answer.Healthy || answer.Reason == "" {
		t.Errorf("without a server: %+v", r)
	}
	stop := startServer(t, dir)
	if answer := decode[health](t, ok(t, "", "healthcheck", "--data", dir, "--json")); !answer.Healthy {
		t.Errorf("with a server: %+v", answer)
	}
	h, err := control.NewClient(dir).Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out := ok(t, "", "healthcheck", "--url", "http://"+h.Addr); !strings.Contains(out, "/healthz") {
		t.Errorf("by URL: %s", out)
	}
	fails(t, exitFault, strings.TrimSpace(http.StatusText(http.StatusNotFound)), "healthcheck", "--url", "http://"+h.Addr+"/no-such-page")
	if left := stop(); left.status != exitOK {
		t.Errorf("server left %+v", left)
	}
	fails(t, exitFault, "not healthy", "healthcheck", "--url", "http://"+h.Addr)
}

func TestSecondServerOnOneDirectoryIsRefused(t *testing.T) {
	dir := dataDir(t)
	startServer(t, dir)
	fails(t, exitFault, "data directory is in use", "serve", "--listen", "127.0.0.1:0", "--data", dir)
}
