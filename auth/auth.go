// Package auth knows who may do what: users and their passwords, login
// sessions, API keys and the room tokens signed with them, TURN credentials,
// the one-time set-up link, invites and their guests, and the throttle of
// failed logins.
//
// It speaks neither HTTP nor TURN: it turns secrets, inputs and a time into
// answers, wherever possible without state. What must be remembered goes
// through Store, so that all nodes of a cluster remember the same. The caller
// tells it of changes made elsewhere (Changed, Reload).
package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"
)

// Store keeps small, durable records that all nodes share; callbox's bus is one.
type Store interface {
	// Update replaces one record: f gets the present value (nil: none) and
	// returns the new one (nil: delete) and its life (0: for ever). f may be
	// called several times; its error is returned as it is, with nothing changed.
	Update(ctx context.Context, bucket, key string, f func(old []byte) (new []byte, ttl time.Duration, err error)) error
	// Load returns all live records of a bucket by key.
	Load(ctx context.Context, bucket string) (map[string][]byte, error)
}

// The buckets this package keeps, for handing out news of changes.
const (
	BucketUsers       = "users"       // Users
	BucketKeys        = "keys"        // Keys
	BucketRevocations = "revocations" // Sessions
	BucketThrottle    = "throttle"    // Throttle
	BucketSetup       = "setup"       // Setup; nothing is cached
	BucketInvites     = "invites"     // Invites
	BucketExternals   = "externals"   // Externals
)

// Errors that callers tell apart. Texts are fit for people.
var (
	ErrExists      = errors.New("a user of that name exists")
	ErrName        = errors.New("a user name has 1 to 64 letters, digits, dots, hyphens, underscores and at signs")
	ErrPassword    = errors.New("a password has 8 to 1024 bytes")
	ErrNotFound    = errors.New("not found")
	ErrCredentials = errors.New("wrong user name or password")
	ErrBusy        = errors.New("too many logins at this moment; try again shortly")
	ErrSession     = errors.New("session is not valid")
	ErrToken       = errors.New("room token is not valid")
	ErrKey         = errors.New("API key is not valid")
	ErrSetup       = errors.New("set-up link is not valid; a new one is printed when the server starts without users")
	ErrExpired     = errors.New("has expired")
	ErrRevoked     = errors.New("has been revoked")
	ErrUsername    = errors.New("TURN user name is not expiry:handle")
	ErrRealm       = errors.New("foreign TURN realm")
)

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// mac is HMAC-SHA-256 of a purpose and parts; each part is preceded by its
// length, so that no two lists of parts are the same input.
func mac(secret []byte, purpose string, parts ...string) []byte {
	h := hmac.New(sha256.New, secret)
	for _, p := range append([]string{purpose}, parts...) {
		n := len(p)
		h.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode is strict: one text for one value, so that a signed text has no other spelling.
func decode(s string) ([]byte, error) { return base64.RawURLEncoding.Strict().DecodeString(s) }
