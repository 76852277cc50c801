package certs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"callbox/bus"
)

// lockPolls is how often, in one lease, who waits for a lock looks at it.
const lockPolls = 30

// errHeld says that another has the lock.
var errHeld = errors.New("lock is held")

// lockRecord is a lock as all nodes see it. It stays when the lock is given up: tokens only ever grow.
type lockRecord struct {
	Holder string `json:"holder"` // "": nobody
	Token  uint64 `json:"token"`
	Beat   uint64 `json:"beat"` // grows while the holder lives
}

// lock is one that this process holds, or has lost without knowing.
type lock struct {
	name, holder string
	token        uint64
	lost         atomic.Bool
	stop, done   chan struct{}
}

// Lock takes a lock, waiting for its holder. One whose holder has shown no sign of life for a whole lease is taken from it;
// the waiting one measures that by its own clock, so that the nodes' clocks need not agree.
func (s *storage) Lock(ctx context.Context, name string) error {
	l := &lock{name: name, holder: rand.Text(), stop: make(chan struct{}), done: make(chan struct{})}
	var seen lockRecord
	var since time.Time
	tick := time.NewTicker(s.lease / lockPolls)
	defer tick.Stop()
	for {
		var now lockRecord
		err := s.records.Update(ctx, bucketLocks, name, func(old []byte) ([]byte, time.Duration, error) {
			now = decodeLock(old)
			if now.Holder != "" && !(now == seen && time.Since(since) >= s.lease) {
				return nil, 0, errHeld
			}
			l.token = now.Token + 1
			text, err := json.Marshal(lockRecord{Holder: l.holder, Token: l.token})
			return text, 0, err
		})
		switch {
		case err == nil:
			s.mu.Lock()
			s.held = append(s.held, l)
			s.mu.Unlock()
			go s.beat(l)
			return nil
		case !errors.Is(err, errHeld) && !errors.Is(err, bus.ErrNoLink) && !errors.Is(err, bus.ErrConflict):
			return fmt.Errorf("lock %s: %w", name, err)
		}
		if now != seen {
			seen, since = now, time.Now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock %s: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

// Unlock gives the last lock of that name up, and waits for its goroutine.
func (s *storage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	var l *lock
	for i := len(s.held) - 1; i >= 0 && l == nil; i-- {
		if s.held[i].name == name {
			l = s.held[i]
			s.held = append(s.held[:i:i], s.held[i+1:]...)
		}
	}
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("lock %s: not held", name)
	}
	close(l.stop)
	<-l.done
	err := l.update(ctx, s.records, func(r *lockRecord) { r.Holder = "" })
	if errors.Is(err, ErrFenced) {
		return nil // it is another's, who will give it up
	}
	return err
}

// beat shows signs of life until the lock is given up or lost. Lock starts it, Unlock waits for it.
func (s *storage) beat(l *lock) {
	defer close(l.done)
	tick := time.NewTicker(s.lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.lease/3)
		err := l.update(ctx, s.records, func(r *lockRecord) { r.Beat++ })
		cancel()
		if errors.Is(err, ErrFenced) {
			s.log.Warn("certificate lock was lost to another node", "lock", l.name)
			return
		}
	}
}

// guard is the lock under which this order writes; nil: none.
func (s *storage) guard() *lock {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) == 0 {
		return nil
	}
	return s.held[len(s.held)-1]
}

// check says ErrFenced where the lock is another's by now.
func (l *lock) check(ctx context.Context, records bus.Records) error {
	if l.lost.Load() {
		return fmt.Errorf("lock %s: %w", l.name, ErrFenced)
	}
	err := l.update(ctx, records, nil)
	if errors.Is(err, errOnlyRead) {
		return nil
	}
	return err
}

// update changes the record of a lock that is still held; a nil change only looks.
func (l *lock) update(ctx context.Context, records bus.Records, change func(*lockRecord)) error {
	err := records.Update(ctx, bucketLocks, l.name, func(old []byte) ([]byte, time.Duration, error) {
		now := decodeLock(old)
		if now.Holder != l.holder {
			return nil, 0, ErrFenced
		}
		if change == nil {
			return nil, 0, errOnlyRead
		}
		change(&now)
		text, err := json.Marshal(now)
		return text, 0, err
	})
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrFenced) {
		l.lost.Store(true)
	}
	return fmt.Errorf("lock %s: %w", l.name, err)
}

// decodeLock takes a damaged record for a free lock: it is better ordered twice than never.
func decodeLock(text []byte) (r lockRecord) {
	if json.Unmarshal(text, &r) != nil {
		return lockRecord{}
	}
	return r
}
