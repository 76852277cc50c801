package datadir

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func secrets(t *testing.T, d *Dir, o SecretOptions) Secrets {
	t.Helper()
	s, err := d.Secrets(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDirectoryBelongsToOneProcessAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "data")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("second open: %v", err)
	}
	if beside, err := At(path); err != nil || beside.Close() != nil {
		t.Errorf("beside the lock: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func TestWhatIsNoDirectoryIsRefused(t *testing.T) {
	if _, err := Open(write(t, "a file", 0o600)); err == nil {
		t.Error("a file was opened as a data directory")
	}
}

func TestSecretsAreMadeOnceAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := open(t, path)
	first := secrets(t, d, SecretOptions{})
	if len(first.Master) != 32 || len(first.TURN) != 1 || len(first.TURN[0]) != 44 || first.Cluster != nil {
		t.Errorf("secrets of %d, %d bytes", len(first.Master), len(first.TURN[0]))
	}
	again := secrets(t, d, SecretOptions{})
	if !bytes.Equal(first.Master, again.Master) || !bytes.Equal(first.TURN[0], again.TURN[0]) {
		t.Error("the secrets have changed")
	}
	other := secrets(t, open(t, filepath.Join(t.TempDir(), "data")), SecretOptions{})
	if bytes.Equal(first.Master, other.Master) || bytes.Equal(first.TURN[0], other.TURN[0]) {
		t.Error("two directories have the same secrets")
	}
	left, err := filepath.Glob(filepath.Join(path, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestOfManyMakersAllGetTheSameSecret(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	got := make([]Secrets, 8)
	for i := range got {
		wg.Go(func() {
			d, err := At(path)
			if err == nil {
				got[i], err = d.Secrets(SecretOptions{})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range got {
		if !bytes.Equal(s.Master, got[0].Master) || !bytes.Equal(s.TURN[0], got[0].TURN[0]) {
			t.Fatal("makers disagree")
		}
	}
}

func TestDamagedSecretIsReportedAndKept(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "data"))
	for _, text := range []string{"not base64 at all!!", base64.StdEncoding.EncodeToString([]byte("tiny")) + "AAAAAAAAAA", "", "short"} {
		if err := os.WriteFile(d.File(SecretFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Secrets(SecretOptions{}); err == nil || !strings.Contains(err.Error(), SecretFile) {
			t.Errorf("%q: error %v", text, err)
		}
		if kept, err := os.ReadFile(d.File(SecretFile)); err != nil || string(kept) != text {
			t.Errorf("%q: file is now %q, %v", text, kept, err)
		}
	}
}

func TestSecretFileHasOneSecretALine(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "data"))
	file := write(t, "# newest first\n  new-secret-of-twenty-bytes\r\n\nold secret, spaces inside\n", 0o600)
	s := secrets(t, d, SecretOptions{TURNFile: file})
	if len(s.TURN) != 2 || string(s.TURN[0]) != "new-secret-of-twenty-bytes" || string(s.TURN[1]) != "old secret, spaces inside" {
		t.Errorf("got %q", s.TURN)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty": {"", "has no secret in it"}, "comments alone": {"# nothing\n\n", "has no secret in it"},
		"short": {"long enough to be one\nshort\n", ":2 is a secret shorter"},
		"many":  {strings.Repeat("long enough to be one\n", 65), "more than 64"},
		"huge":  {strings.Repeat("x", 70000), "longer than"},
	} {
		if _, err := ReadSecrets(write(t, c.text, 0o600)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadSecrets(t.TempDir()); err == nil {
		t.Error("a directory was read as a secret file")
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := ReadSecrets(missing); !errors.Is(err, fs.ErrNotExist) || err.Error() != missing+" does not exist; make one with: openssl rand -base64 32 > "+missing+"; chmod 600 "+missing {
		t.Errorf("a missing file: %v", err)
	}
}

func TestNodesOfAClusterDeriveTheSameSecrets(t *testing.T) {
	cluster := write(t, "a cluster secret of some length\nan older one, which counts for nothing\n", 0o600)
	o := SecretOptions{ClusterFile: cluster, Clustered: true}
	a := secrets(t, open(t, filepath.Join(t.TempDir(), "a")), o)
	b := secrets(t, open(t, filepath.Join(t.TempDir(), "b")), o)
	if !bytes.Equal(a.Master, b.Master) || !bytes.Equal(a.TURN[0], b.TURN[0]) || string(a.Cluster) != "a cluster secret of some length" {
		t.Error("nodes disagree")
	}
	if bytes.Contains(a.TURN[0], a.Master) || bytes.Equal(a.Master, a.Cluster) {
		t.Error("derived secrets are not separate")
	}
	turn := write(t, "turn secret of some length\n", 0o600)
	c := secrets(t, open(t, filepath.Join(t.TempDir(), "c")), SecretOptions{TURNFile: turn, Clustered: true})
	if string(c.TURN[0]) != "turn secret of some length" || !bytes.Equal(c.Cluster, c.TURN[0]) || bytes.Equal(c.Master, a.Master) {
		t.Error("the TURN secret does not stand in for the cluster secret")
	}
	if _, err := open(t, filepath.Join(t.TempDir(), "d")).Secrets(SecretOptions{Clustered: true}); err == nil || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("a node without secret: %v", err)
	}
}

func FuzzSecrets(f *testing.F) {
	f.Add([]byte("# c\nsecret of sixteen bytes\n"))
	f.Add([]byte("\r\n\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseSecrets("file", text)
		if err != nil {
			return
		}
		for _, s := range got {
			if len(s) < minSecret || s[0] == '#' || bytes.ContainsAny(s, "\n") {
				t.Errorf("secret %q", s)
			}
		}
		if len(got) == 0 || len(got) > maxSecrets {
			t.Errorf("%d secrets", len(got))
		}
	})
}
