package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Keys of revocation records: the kind and the tag of a session or user. Tags,
// because they are what TURN user names carry, and tell a reader of the store nothing.
const (
	revokedSession = "session-"
	revokedUser    = "user-"
)

// minRevocation keeps a record long enough to reach every node.
const minRevocation = time.Minute

// revocations are sessions that ended before their time.
type revocations struct {
	secret []byte
	store  Store
	cache  *cache[revocation]
}

// revocation ends what began at Before or sooner; after Until it is of no more use.
type revocation struct {
	Before time.Time `json:"before"`
	Until  time.Time `json:"until"`
}

func newRevocations(store Store, secret []byte) *revocations {
	return &revocations{secret: secret, store: store, cache: newCache(store, BucketRevocations, decodeRevocation)}
}

func decodeRevocation(_ string, text []byte) (revocation, error) {
	var r revocation
	err := json.Unmarshal(text, &r)
	return r, err
}

func (r *revocations) add(ctx context.Context, key string, now time.Time, life time.Duration) error {
	life = max(life, minRevocation)
	err := r.store.Update(ctx, BucketRevocations, key, func(old []byte) ([]byte, time.Duration, error) {
		entry := revocation{Before: now.Truncate(time.Millisecond), Until: now.Add(life)}
		if earlier, err := decodeRevocation(key, old); err == nil && earlier.Before.After(entry.Before) {
			entry = earlier
		}
		text, err := json.Marshal(entry)
		return text, entry.Until.Sub(now), err
	})
	if err != nil {
		return fmt.Errorf("revocation: %w", err)
	}
	r.prune(now)
	return r.cache.reload(ctx, key)
}

// prune forgets what has outlived its use; the store does so by itself and tells nobody.
func (r *revocations) prune(now time.Time) {
	var old []string
	for key, entry := range r.cache.all() {
		if now.After(entry.Until) {
			old = append(old, key)
		}
	}
	r.cache.drop(old...)
}

func (r *revocations) session(s Session, now time.Time) bool {
	return r.handle(userTag(r.secret, s.User), sessionTag(r.secret, s.ID), now)
}

// handle says whether a session, known by its tags, was revoked by itself or with its user.
func (r *revocations) handle(user, session string, now time.Time) bool {
	if entry, ok := r.cache.get(revokedSession + session); ok && now.Before(entry.Until) {
		return true
	}
	entry, ok := r.cache.get(revokedUser + user)
	if !ok || !now.Before(entry.Until) {
		return false
	}
	issued, known := sessionTagTime(session)
	return !known || !issued.After(entry.Before)
}
