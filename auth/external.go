package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// externalKind begins the names of users who log in at an OpenID provider. No
// name of a user with a password has a colon, so neither can be the other.
const externalKind = "oidc:"

// externalSeen is how old Seen may become before a login writes it anew.
const externalSeen = time.Hour

const (
	maxIdentity    = 255 // bytes of issuer and subject each (OpenID Connect Core, section 2)
	maxDisplayText = maxDisplayName
)

// Errors of Externals.
var (
	ErrExternalName  = fmt.Errorf("a user name from the provider has 1 to %d printable ASCII characters, without spaces and colons", maxUserName)
	ErrExternalTaken = errors.New("another account of the provider has used that name here; an administrator can remove it with callbox user remove")
)

// Identity is who an OpenID provider says somebody is. Issuer and Subject are
// what counts; the name may be given to another account one day.
type Identity struct {
	Issuer  string
	Subject string
	Name    string // to log in as
	Display string // to show to others; "" is Name
}

// External is a user who logs in at an OpenID provider.
type External struct {
	Name    string // "oidc:" and the name there
	Display string
	Created time.Time // first login
	Seen    time.Time // last login, up to an hour before it
}

// Externals are all users who have logged in at an OpenID provider, read from
// the store and held in memory.
type Externals struct {
	store Store
	cache *cache[externalRecord]
}

// externalRecord is such a user as stored, by lower-case name without the kind.
type externalRecord struct {
	Name    string    `json:"name"`
	Display string    `json:"display,omitempty"`
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"`
}

func (r externalRecord) external() External {
	display := r.Display
	if display == "" {
		display = r.Name
	}
	return External{Name: externalKind + r.Name, Display: display, Created: r.Created, Seen: r.Seen}
}

func decodeExternal(key string, text []byte) (externalRecord, error) {
	var r externalRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return externalRecord{}, err
	}
	if !validExternal(r.Name) || foldName(r.Name) != key || r.Subject == "" {
		return externalRecord{}, fmt.Errorf("its user is %q", r.Name)
	}
	return r, nil
}

// OpenExternals reads the users from the store.
func OpenExternals(ctx context.Context, store Store) (*Externals, error) {
	e := &Externals{store: store, cache: newCache(store, BucketExternals, decodeExternal)}
	if err := e.Reload(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload reads all of them anew, for when news of changes may have been missed.
func (e *Externals) Reload(ctx context.Context) error { return e.cache.reloadAll(ctx) }

// Changed reads one of them anew, after news of a change of its record.
func (e *Externals) Changed(ctx context.Context, key string) error { return e.cache.reload(ctx, key) }

// IsExternal says whether a name is that of a user of an OpenID provider.
func IsExternal(name string) bool { return strings.HasPrefix(name, externalKind) }

// LogIn finds the user of an identity that was verified, or makes one at the
// first login. A name belongs to the account that has used it first:
// ErrExternalTaken for any other. ErrExternalName.
func (e *Externals) LogIn(ctx context.Context, id Identity, now time.Time) (External, error) {
	if !validExternal(id.Name) {
		return External{}, ErrExternalName
	}
	if id.Subject == "" || len(id.Subject) > maxIdentity || len(id.Issuer) > maxIdentity {
		return External{}, fmt.Errorf("%w: it has no usable subject", ErrExternalName)
	}
	if !printable(id.Display, maxDisplayText) {
		id.Display = ""
	}
	key := foldName(id.Name)
	now = now.UTC().Truncate(time.Millisecond)
	err := e.store.Update(ctx, BucketExternals, key, func(old []byte) ([]byte, time.Duration, error) {
		r := externalRecord{Name: id.Name, Issuer: id.Issuer, Subject: id.Subject, Created: now}
		if old != nil {
			before, err := decodeExternal(key, old)
			switch {
			case err != nil:
				return nil, 0, err
			case before.Issuer != id.Issuer || before.Subject != id.Subject:
				return nil, 0, ErrExternalTaken
			case before.Display == id.Display && now.Sub(before.Seen) < externalSeen:
				return nil, 0, errOnlyRead
			}
			r = before
		}
		r.Display, r.Seen = id.Display, now
		text, err := json.Marshal(r)
		return text, 0, err
	})
	if err != nil && !errors.Is(err, errOnlyRead) {
		return External{}, err
	}
	if err := e.cache.reload(ctx, key); err != nil {
		return External{}, err
	}
	found, ok := e.Lookup(externalKind + id.Name)
	if !ok {
		return External{}, fmt.Errorf("user %s: %w", externalKind+id.Name, ErrNotFound) // removed at this moment
	}
	return found, nil
}

// Lookup finds a user by name, which begins with the kind.
func (e *Externals) Lookup(name string) (External, bool) {
	rest, ok := strings.CutPrefix(name, externalKind)
	if !ok {
		return External{}, false
	}
	r, ok := e.cache.get(foldName(rest))
	return r.external(), ok
}

// List returns all of them, sorted by name.
func (e *Externals) List() []External {
	var out []External
	for _, r := range e.cache.all() {
		out = append(out, r.external())
	}
	slices.SortFunc(out, func(a, b External) int { return strings.Compare(foldName(a.Name), foldName(b.Name)) })
	return out
}

// Remove forgets a user: ErrNotFound. Ending the user's sessions is
// Sessions.RevokeUser's part; who may still log in at the provider comes back
// with the next login.
func (e *Externals) Remove(ctx context.Context, name string) error {
	found, ok := e.Lookup(name)
	if !ok {
		return fmt.Errorf("user %q: %w", clipName(name), ErrNotFound)
	}
	key := foldName(strings.TrimPrefix(found.Name, externalKind))
	err := e.store.Update(ctx, BucketExternals, key, func(old []byte) ([]byte, time.Duration, error) {
		if old == nil {
			return nil, 0, fmt.Errorf("user %s: %w", found.Name, ErrNotFound)
		}
		return nil, 0, nil
	})
	if err != nil {
		return err
	}
	return e.cache.reload(ctx, key)
}

// validExternal takes more than ValidUserName, as providers name people by
// addresses; ASCII only, for the same reason.
func validExternal(name string) bool {
	if name == "" || len(name) > maxUserName {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return true
}

func clipName(name string) string {
	return name[:min(len(name), maxUserName)]
}
