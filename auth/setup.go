package auth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// SetupTTL is how long a set-up link is valid.
const SetupTTL = 30 * time.Minute

// setupGuard is the key of the record that lets only one of several links make
// the first user; setupGuardAge is when it can only be a left-over.
const (
	setupGuard    = "redeemed"
	setupGuardAge = time.Minute
)

// Setup are the one-time links that make the first user. Several may be valid
// at a time, as each node of a new cluster prints its own; one of them works.
type Setup struct{ store Store }

// NewSetup returns the set-up links of a store.
func NewSetup(store Store) *Setup { return &Setup{store: store} }

// setupRecord is a link, by the hash of its token, or the guard.
type setupRecord struct {
	Until time.Time `json:"until"`
}

// Issue makes a link's token, 128 random bits. Only its hash is stored. To be
// called when there are no users.
func (s *Setup) Issue(ctx context.Context, now time.Time) (string, error) {
	err := s.store.Update(ctx, BucketSetup, setupGuard, func(old []byte) ([]byte, time.Duration, error) {
		r, ok := decodeSetup(old)
		if ok && now.Before(r.Until.Add(setupGuardAge-SetupTTL)) {
			return nil, 0, errOnlyRead
		}
		return nil, 0, nil
	})
	if err != nil && !errors.Is(err, errOnlyRead) {
		return "", fmt.Errorf("set-up link: %w", err)
	}
	token := encode(random(16))
	if err := s.put(ctx, setupKey(token), now.Add(SetupTTL), now); err != nil {
		return "", fmt.Errorf("set-up link: %w", err)
	}
	return token, nil
}

// Valid answers whether a token may still be redeemed: nil, ErrSetup, or what went wrong with the store.
func (s *Setup) Valid(ctx context.Context, token string, now time.Time) error {
	records, err := s.store.Load(ctx, BucketSetup)
	if err != nil {
		return fmt.Errorf("set-up link: %w", err)
	}
	if r, ok := decodeSetup(records[setupKey(token)]); !ok || !now.Before(r.Until) {
		return ErrSetup
	}
	if r, ok := decodeSetup(records[setupGuard]); ok && now.Before(r.Until) {
		return ErrSetup
	}
	return nil
}

// Redeem uses a token up and calls f; where f fails, the token is as good as
// before. ErrSetup: not valid, or another link was redeemed.
func (s *Setup) Redeem(ctx context.Context, token string, now time.Time, f func() error) error {
	if err := s.Valid(ctx, token, now); err != nil {
		return err
	}
	err := s.store.Update(ctx, BucketSetup, setupGuard, func(old []byte) ([]byte, time.Duration, error) {
		if r, ok := decodeSetup(old); ok && now.Before(r.Until) {
			return nil, 0, ErrSetup
		}
		text, err := json.Marshal(setupRecord{Until: now.Add(SetupTTL)})
		return text, SetupTTL, err
	})
	if err != nil {
		return fmt.Errorf("set-up link: %w", err)
	}
	if err := f(); err != nil {
		// Also when the caller has given up: the next try must find the link usable.
		return errors.Join(err, s.remove(context.WithoutCancel(ctx), setupGuard))
	}
	return s.remove(context.WithoutCancel(ctx), setupKey(token))
}

func (s *Setup) put(ctx context.Context, key string, until, now time.Time) error {
	return s.store.Update(ctx, BucketSetup, key, func([]byte) ([]byte, time.Duration, error) {
		text, err := json.Marshal(setupRecord{Until: until})
		return text, until.Sub(now), err
	})
}

func (s *Setup) remove(ctx context.Context, key string) error {
	return s.store.Update(ctx, BucketSetup, key, func([]byte) ([]byte, time.Duration, error) { return nil, 0, nil })
}

func setupKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "link-" + encode(sum[:])
}

func decodeSetup(text []byte) (setupRecord, bool) {
	var r setupRecord
	return r, text != nil && json.Unmarshal(text, &r) == nil
}
