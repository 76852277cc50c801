package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"callbox/bus"
)

// Buckets of the records.
const (
	BucketCertificates = "certificates"
	bucketLocks        = "certificate-locks"
)

// ErrFenced says that a lock was lost to another node, and that nothing is written under it any more.
var ErrFenced = errors.New("certificate lock was lost to another node")

// storage is a certmagic.Storage in the records that all nodes share. Its locks are leases with fencing tokens: what is
// written while a lock is held carries the lock's token, and a holder that was thought dead, wakes up and goes on writes
// nothing over what its successor has written.
//
// Each order has a storage of its own, so that it is known under which lock a write happens: the one taken last.
type storage struct {
	records bus.Records
	lease   time.Duration
	log     *slog.Logger

	mu   sync.Mutex
	held []*lock // in the order in which they were taken
}

var _ certmagic.Storage = (*storage)(nil)

// leaseLife is how long a lock outlives its holder. A holder shows a sign of life every third of it.
const leaseLife = 30 * time.Second

func newStorage(records bus.Records, lease time.Duration, log *slog.Logger) *storage {
	return &storage{records: records, lease: lease, log: log}
}

// stored is one value as it stands in a record.
type stored struct {
	Value    []byte    `json:"value"`
	Modified time.Time `json:"modified"`
	Lock     string    `json:"lock,omitempty"` // under which it was written
	Token    uint64    `json:"token,omitempty"`
}

// Store puts a value at a key.
func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	return s.write(ctx, key, value)
}

// Delete removes a key and all below it.
func (s *storage) Delete(ctx context.Context, key string) error {
	all, err := s.records.Load(ctx, BucketCertificates)
	if err != nil {
		return fmt.Errorf("certificate store: %w", err)
	}
	for k := range all {
		if k == key || strings.HasPrefix(k, key+"/") {
			if err := s.write(ctx, k, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// write replaces a value, or deletes it where it is nil.
func (s *storage) write(ctx context.Context, key string, value []byte) error {
	next := stored{Value: value, Modified: time.Now().UTC()}
	if guard := s.guard(); guard != nil {
		if err := guard.check(ctx, s.records); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		next.Lock, next.Token = guard.name, guard.token
	}
	err := s.records.Update(ctx, BucketCertificates, key, func(old []byte) ([]byte, time.Duration, error) {
		var was stored
		if old != nil && json.Unmarshal(old, &was) == nil && was.Lock == next.Lock && was.Token > next.Token {
			return nil, 0, ErrFenced
		}
		if value == nil {
			return nil, 0, nil
		}
		text, err := json.Marshal(next)
		return text, 0, err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// Load reads the value at a key.
func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	found, err := s.read(ctx, key)
	if err != nil {
		return nil, err
	}
	return found.Value, nil
}

// errOnlyRead ends an update that was made to read one record.
var errOnlyRead = errors.New("only read")

func (s *storage) read(ctx context.Context, key string) (stored, error) {
	var text []byte
	err := s.records.Update(ctx, BucketCertificates, key, func(old []byte) ([]byte, time.Duration, error) {
		text = slices.Clone(old)
		return nil, 0, errOnlyRead
	})
	if errors.Is(err, bus.ErrNoLink) {
		// What this node's own disk has will do for serving.
		var all map[string][]byte
		if all, err = s.records.Load(ctx, BucketCertificates); err == nil {
			text, err = all[key], errOnlyRead
		}
	}
	switch {
	case !errors.Is(err, errOnlyRead):
		return stored{}, fmt.Errorf("%s: %w", key, err)
	case text == nil:
		return stored{}, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	var found stored
	if err := json.Unmarshal(text, &found); err != nil {
		return stored{}, fmt.Errorf("%s: damaged: %w", key, err)
	}
	return found, nil
}

// Exists says whether there is a value at a key, or one below it.
func (s *storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List returns the keys below a path: all values, or the values and folders right below it.
func (s *storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	all, err := s.records.Load(ctx, BucketCertificates)
	if err != nil {
		return nil, fmt.Errorf("certificate store: %w", err)
	}
	prefix := strings.TrimSuffix(path, "/") + "/"
	if path == "" {
		prefix = ""
	}
	var out []string
	for key := range all {
		rest, below := strings.CutPrefix(key, prefix)
		if !below {
			continue
		}
		if first, _, deeper := strings.Cut(rest, "/"); deeper && !recursive {
			key = prefix + first
		}
		out = append(out, key)
	}
	if out == nil {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Stat describes a key.
func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	found, err := s.read(ctx, key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: found.Modified, Size: int64(len(found.Value)), IsTerminal: true}, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := s.List(ctx, key, false); err == nil {
			return certmagic.KeyInfo{Key: key}, nil
		}
	}
	return certmagic.KeyInfo{}, err
}
