package auth

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxKeys bounds how many API keys there are: a token that names none is tried against all.
const maxKeys = 100

// maxKeyName is the longest name of an API key, in bytes.
const maxKeyName = 64

// Errors of Keys.Add.
var (
	ErrKeyName     = errors.New("the name of an API key has 1 to 64 bytes of printable text")
	ErrTooManyKeys = fmt.Errorf("there are %d API keys already; remove one", maxKeys)
)

// Key is an API key: with it, another program signs room tokens and asks for TURN credentials.
type Key struct {
	ID      string // 16 hexadecimal digits
	Name    string
	Created time.Time
}

// Keys are all API keys, read from the store and held in memory. The secrets
// are kept as they are, since HMAC needs them.
type Keys struct {
	store Store
	cache *cache[keyRecord]
}

type keyRecord struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Secret  string    `json:"secret"` // base64url of 32 random bytes; HMAC takes the text as it stands
	Created time.Time `json:"created"`
}

func (r keyRecord) key() Key { return Key{ID: r.ID, Name: r.Name, Created: r.Created} }

func decodeKey(key string, text []byte) (keyRecord, error) {
	var r keyRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return keyRecord{}, err
	}
	if r.ID != key || r.Secret == "" {
		return keyRecord{}, fmt.Errorf("its key is %q", r.ID)
	}
	return r, nil
}

// OpenKeys reads the API keys from the store.
func OpenKeys(ctx context.Context, store Store) (*Keys, error) {
	k := &Keys{store: store, cache: newCache(store, BucketKeys, decodeKey)}
	if err := k.Reload(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads all keys anew, for when news of changes may have been missed.
func (k *Keys) Reload(ctx context.Context) error { return k.cache.reloadAll(ctx) }

// Changed reads one key anew, after news of a change of its record.
func (k *Keys) Changed(ctx context.Context, key string) error { return k.cache.reload(ctx, key) }

// Add makes a key and returns its secret, which is not shown again.
func (k *Keys) Add(ctx context.Context, name string, now time.Time) (id, secret string, err error) {
	if !printable(name, maxKeyName) {
		return "", "", ErrKeyName
	}
	if k.cache.count() >= maxKeys {
		return "", "", ErrTooManyKeys
	}
	r := keyRecord{ID: hex.EncodeToString(random(8)), Name: name, Secret: encode(random(32)), Created: now.UTC().Truncate(time.Millisecond)}
	err = k.store.Update(ctx, BucketKeys, r.ID, func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			return nil, 0, fmt.Errorf("API key %s: exists", r.ID)
		}
		text, err := json.Marshal(r)
		return text, 0, err
	})
	if err != nil {
		return "", "", err
	}
	return r.ID, r.Secret, k.cache.reload(ctx, r.ID)
}

// List returns all keys, the oldest first.
func (k *Keys) List() []Key {
	var out []Key
	for _, r := range k.records() {
		out = append(out, r.key())
	}
	return out
}

// records are all keys, the oldest first.
func (k *Keys) records() []keyRecord {
	var out []keyRecord
	for _, r := range k.cache.all() {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b keyRecord) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// Signer is the secret of a key, for signatures of our own; with an empty id that of the oldest key. False: there is none.
func (k *Keys) Signer(id string) (of, secret string, ok bool) {
	if id != "" {
		r, ok := k.cache.get(id)
		return r.ID, r.Secret, ok
	}
	all := k.records()
	if len(all) == 0 {
		return "", "", false
	}
	return all[0].ID, all[0].Secret, true
}

// Remove removes a key: ErrNotFound. Tokens signed with it are no longer valid.
func (k *Keys) Remove(ctx context.Context, id string) error {
	if _, ok := k.cache.get(id); !ok {
		return fmt.Errorf("API key %s: %w", shown(id), ErrNotFound)
	}
	err := k.store.Update(ctx, BucketKeys, id, func(old []byte) ([]byte, time.Duration, error) {
		if old == nil {
			return nil, 0, fmt.Errorf("API key %s: %w", shown(id), ErrNotFound)
		}
		return nil, 0, nil
	})
	if err != nil {
		return err
	}
	return k.cache.reload(ctx, id)
}

// Authenticate answers whose the key "ID.SECRET" is: ErrKey.
func (k *Keys) Authenticate(text string) (Key, error) {
	id, secret, ok := SplitKey(text)
	if !ok {
		return Key{}, ErrKey
	}
	r, ok := k.cache.get(id)
	if !ok || subtle.ConstantTimeCompare([]byte(r.Secret), []byte(secret)) != 1 {
		return Key{}, ErrKey
	}
	return r.key(), nil
}

// JoinKey is the form in which a key is shown and given: "ID.SECRET".
func JoinKey(id, secret string) string { return id + "." + secret }

// KeySession is the session text, for Handle, of everybody who holds a token
// signed by an API key: they lose their relays together, with the key. A
// session id has no colon, so it is nobody's session.
func KeySession(id string) string { return "key:" + id }

// SplitKey is the inverse of JoinKey.
func SplitKey(text string) (id, secret string, ok bool) {
	id, secret, ok = strings.Cut(text, ".")
	return id, secret, ok && id != "" && secret != "" && len(text) <= 256
}

// printable says whether a text of 1 to limit bytes has nothing but printable characters in it.
func printable(s string, limit int) bool {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
