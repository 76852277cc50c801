// Package datadir is the data directory: made with the right modes, locked by
// the one process that works on it, and the place of the secrets that callbox
// makes for itself. What the records in it mean is the bus's affair.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"
)

// Names of files in the directory.
const (
	LockFile       = "lock"
	SecretFile     = "secret"
	TURNSecretFile = "turn-secret"
)

// What must be closed: what callbox makes belongs to one user; a secret file of
// the operator may be shared with a group, such as that of another TURN server.
const (
	ownerOnly  fs.FileMode = 0o077
	ownerGroup fs.FileMode = 0o027
)

// ErrLocked says that another process works on the directory.
var ErrLocked = errors.New("data directory is in use")

// ErrRights says that the directory or a secret in it is open to others, or closed to this user.
var ErrRights = errors.New("data directory rights")

// Dir is an open data directory. It holds the lock until Close.
type Dir struct {
	path string
	lock *flock.Flock // nil: not locked
}

// Open makes the directory where it is missing, checks its mode and locks it.
func Open(path string) (*Dir, error) {
	if err := Make(path); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(path, LockFile), flock.SetPermissions(0o600))
	held, err := lock.TryLock()
	if err != nil {
		return nil, rights(path, fmt.Errorf("data directory lock: %w", err))
	}
	if !held {
		return nil, fmt.Errorf("%w: another callbox runs on %s; stop it, or give this one a directory of its own with --data", ErrLocked, path)
	}
	return &Dir{path: path, lock: lock}, nil
}

// Make makes the directory with mode 0700 where it is missing, and refuses one that others may enter.
func Make(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return rights(path, fmt.Errorf("data directory: %w", err))
	}
	info, err := os.Stat(path)
	if err != nil {
		return rights(path, fmt.Errorf("data directory: %w", err))
	}
	if !info.IsDir() {
		return fmt.Errorf("data directory: %s is not a directory; move the file away, or name another with --data", path)
	}
	if open := openTo(info, ownerOnly); open != "" {
		return fmt.Errorf("%w: %s %s; run: chmod go= %s", ErrRights, path, open, path)
	}
	return nil
}

// Path is the directory's path as it was given.
func (d *Dir) Path() string { return d.path }

// File is the path of a file in the directory.
func (d *Dir) File(name string) string { return filepath.Join(d.path, name) }

// Close releases the lock.
func (d *Dir) Close() error {
	if d.lock == nil {
		return nil
	}
	if err := d.lock.Unlock(); err != nil {
		return fmt.Errorf("data directory lock: %w", err)
	}
	return nil
}

// Rights adds the remedy to an error of a file in the directory, where this user may not do what is needed.
func (d *Dir) Rights(err error) error { return rights(d.path, err) }

// rights adds the remedy where this user may not do what is needed.
func rights(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrRights) {
		return err
	}
	info, missing := os.Stat(path)
	if missing != nil {
		return fmt.Errorf("%w: %w; this user may not make or enter %s: start in a folder of its own, or name another directory with --data", ErrRights, err, path)
	}
	if other := checkOwner(path, info); other != nil {
		return fmt.Errorf("%w (%w)", other, err)
	}
	return fmt.Errorf("%w: %w; files in %[3]s belong to another user: sudo chown -R %[4]d %[3]s", ErrRights, err, path, os.Geteuid())
}

// At is a data directory without the lock, for reading secrets beside a running
// server. It is made where it is missing; Close does nothing.
func At(path string) (*Dir, error) {
	if err := Make(path); err != nil {
		return nil, err
	}
	return &Dir{path: path}, nil
}

// CheckOwner refuses a directory of another user, even to one who may write to
// it: files that root leaves there are closed to the server.
func CheckOwner(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return rights(path, fmt.Errorf("data directory: %w", err))
	}
	return checkOwner(path, info)
}
