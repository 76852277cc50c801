package cli

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callbox/internal/control"
)

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCredentialIsOfTheRunningServer: its secret and realm were given as flags, of which the command knows nothing.
func TestCredentialIsOfTheRunningServer(t *testing.T) {
	dir := dataDir(t)
	const secret = "a secret of the server's own"
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, secret+"\n")
	startServer(t, dir, "--turn-secret-file", file, "--realm", "its own", "--turn-ttl", "30m")
	made := decode[control.Credential](t, ok(t, "", "credential", "--user", "u", "--data", dir, "--json"))
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(made.Username))
	if want := base64.StdEncoding.EncodeToString(h.Sum(nil)); made.Password != want || made.Realm != "its own" {
		t.Errorf("got %+v, want the password %s", made, want)
	}
	fails(t, exitUsage, "--ttl must be", "credential", "--user", "u", "--ttl", "99999h", "--data", dir)
}

func TestReloadReadsFileAndEnvironmentAgain(t *testing.T) {
	dir := dataDir(t)
	file := filepath.Join(dir, "callbox.yaml")
	writeFile(t, file, "turn-host: one.example\n")
	fails(t, exitFault, "no server is running", "reload", "--data", dir)
	startServer(t, dir, "--config", file, "--max-peers", "9")
	if out := ok(t, "", "reload", "--data", dir); out != "nothing has changed\n" {
		t.Errorf("without a change: %q", out)
	}
	writeFile(t, file, "turn-host: two.example\nmax-peers: 7\nrealm: other\n")
	if out := ok(t, "", "reload", "--data", dir); out != "changed: turn-host\nneeds a restart: realm\n" {
		t.Errorf("got %q", out)
	}
	if got := decode[control.Reloaded](t, ok(t, "", "reload", "--data", dir, "--json")); len(got.Changed) != 0 || len(got.Restart) != 1 {
		t.Errorf("as JSON: %+v", got)
	}
	writeFile(t, file, "turn-host: three.example\nrealms: other\npublic-ip: home\n")
	r := callbox(t, "", "reload", "--data", dir)
	if r.status != exitUsage || !strings.Contains(r.stderr, file+":2") || !strings.Contains(r.stderr, file+":3") || !strings.Contains(r.stderr, "nothing has changed") {
		t.Errorf("faulty: %+v", r)
	}
	writeFile(t, file, "turn-host: two.example\nrealm: callbox\n")
	if out := ok(t, "", "reload", "--data", dir); out != "nothing has changed\n" {
		t.Errorf("after a fault: %q", out)
	}
}
