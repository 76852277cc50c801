//go:build unix

package datadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestDirectoryAndSecretsAreClosedToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := open(t, path)
	secrets(t, d, SecretOptions{})
	for name, want := range map[string]os.FileMode{"": 0o700, SecretFile: 0o600, TURNSecretFile: 0o600, LockFile: 0o600} {
		info, err := os.Stat(d.File(name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%q has mode %o, want %o", name, info.Mode().Perm(), want)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
		if err := os.Chmod(d.File(SecretFile), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Secrets(SecretOptions{}); !errors.Is(err, ErrRights) || !strings.Contains(err.Error(), "chmod go= ") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestOpenDirectoryIsRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o755, 0o710, 0o701, 0o777} {
		path := t.TempDir()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, ErrRights) || !strings.Contains(err.Error(), "chmod go= "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestConfiguredSecretMayBeSharedWithAGroupAlone(t *testing.T) {
	for mode, want := range map[os.FileMode]bool{0o400: true, 0o600: true, 0o640: true, 0o440: true, 0o644: false, 0o660: false, 0o602: false} {
		_, err := ReadSecrets(write(t, "secret of sixteen bytes or more\n", mode))
		if (err == nil) != want {
			t.Errorf("mode %o: %v", mode, err)
		}
		var file *FileError
		if err != nil && (!errors.As(err, &file) || !errors.Is(err, ErrRights) || !strings.Contains(err.Error(), "; run: chmod g-w,o= "+file.Path) || strings.Contains(err.Error(), "data directory")) {
			t.Errorf("mode %o is reported as %v", mode, err)
		}
	}
}

func TestOwnDirectoryHasTheRightOwner(t *testing.T) {
	if err := CheckOwner(t.TempDir()); err != nil {
		t.Error(err)
	}
	// A directory that belongs to root, and where this is root, one that is given away.
	path := "/"
	if os.Geteuid() == 0 {
		path = t.TempDir()
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckOwner(path); !errors.Is(err, ErrRights) || !strings.Contains(err.Error(), "as that user") {
		t.Errorf("directory of another: %v", err)
	}
}

func TestPipeIsNoSecretFileAndIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecrets(path); err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
		t.Errorf("got %v", err)
	}
}

// TestRightsNameTheOwnerAndTheWayOut: of a directory of another, of files of another in one of this user's, and of none.
func TestRightsNameTheOwnerAndTheWayOut(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}
	own, other := t.TempDir(), "/"
	if os.Geteuid() == 0 {
		other = t.TempDir()
		if err := os.Chown(other, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		other: "or give it to this one: sudo chown -R ", own: "files in " + own + " belong to another user: sudo chown -R ",
		filepath.Join(own, "missing"): "name another directory with --data",
	} {
		if err := rights(path, denied); !errors.Is(err, ErrRights) || !errors.Is(err, denied) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := rights(own, fs.ErrExist); err != fs.ErrExist {
		t.Errorf("%v", err)
	}
	file := filepath.Join(own, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Make(file); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("%v", err)
	}
}
