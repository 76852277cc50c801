package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of passwords, in bytes. The upper one keeps a request small; argon2id takes any length.
const (
	minPassword = 8
	maxPassword = 1024
	maxUserName = 64
)

// User is somebody who can log in.
type User struct {
	Name            string
	Admin           bool
	Created         time.Time
	PasswordChanged time.Time
}

// Users are all users, read from the store and held in memory. Names are
// written as they were given, and compared without regard to case.
type Users struct {
	store  Store
	cache  *cache[userRecord]
	hasher *hasher
}

// userRecord is a user as stored, by lower-case name.
type userRecord struct {
	Name            string    `json:"name"`
	Admin           bool      `json:"admin,omitempty"`
	Created         time.Time `json:"created"`
	PasswordChanged time.Time `json:"passwordChanged"`
	Password        string    `json:"password"` // PHC string

	hash passwordHash // parsed Password
}

func (r userRecord) user() User {
	return User{Name: r.Name, Admin: r.Admin, Created: r.Created, PasswordChanged: r.PasswordChanged}
}

func decodeUser(key string, text []byte) (userRecord, error) {
	var r userRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return userRecord{}, err
	}
	if !ValidUserName(r.Name) || foldName(r.Name) != key {
		return userRecord{}, fmt.Errorf("its user is %q", r.Name)
	}
	var err error
	r.hash, err = parsePasswordHash(r.Password)
	return r, err
}

// OpenUsers reads the users from the store.
func OpenUsers(ctx context.Context, store Store) (*Users, error) {
	return openUsers(ctx, store, standardCost)
}

func openUsers(ctx context.Context, store Store, c cost) (*Users, error) {
	u := &Users{store: store, cache: newCache(store, BucketUsers, decodeUser), hasher: newHasher(c)}
	if err := u.Reload(ctx); err != nil {
		return nil, err
	}
	return u, nil
}

// Reload reads all users anew, for when news of changes may have been missed.
func (u *Users) Reload(ctx context.Context) error { return u.cache.reloadAll(ctx) }

// Changed reads one user anew, after news of a change of its record.
func (u *Users) Changed(ctx context.Context, key string) error { return u.cache.reload(ctx, key) }

// List returns all users, sorted by name.
func (u *Users) List() []User {
	records := u.cache.all()
	out := make([]User, 0, len(records))
	for _, r := range records {
		out = append(out, r.user())
	}
	slices.SortFunc(out, func(a, b User) int { return strings.Compare(foldName(a.Name), foldName(b.Name)) })
	return out
}

// Count is the number of users.
func (u *Users) Count() int { return u.cache.count() }

// HasAdmin says whether there is an administrator.
func (u *Users) HasAdmin() bool {
	return u.cache.has(func(r userRecord) bool { return r.Admin })
}

// Lookup finds a user by name; User.Name is the name as it was first written.
func (u *Users) Lookup(name string) (User, bool) {
	r, ok := u.cache.get(foldName(name))
	return r.user(), ok
}

// Add makes a user: ErrName, ErrPassword, ErrExists, ErrBusy.
func (u *Users) Add(ctx context.Context, name, password string, admin bool, now time.Time) error {
	record, err := u.prepare(ctx, name, password, admin, now)
	if err != nil {
		return err
	}
	return u.insert(ctx, record)
}

// AddFirst makes the first user, an administrator, by the set-up link: ErrSetup
// where the link is not valid or there is a user already, and as for Add.
func (u *Users) AddFirst(ctx context.Context, setup *Setup, token, name, password string, now time.Time) error {
	if err := setup.Valid(ctx, token, now); err != nil {
		return err
	}
	record, err := u.prepare(ctx, name, password, true, now)
	if err != nil {
		return err
	}
	return setup.Redeem(ctx, token, now, func() error {
		if err := u.Reload(ctx); err != nil {
			return err
		}
		if u.Count() > 0 {
			return ErrSetup
		}
		return u.insert(ctx, record)
	})
}

// prepare checks name and password and does the slow part.
func (u *Users) prepare(ctx context.Context, name, password string, admin bool, now time.Time) (userRecord, error) {
	if !ValidUserName(name) {
		return userRecord{}, ErrName
	}
	if !validPassword(password) {
		return userRecord{}, ErrPassword
	}
	if _, exists := u.Lookup(name); exists {
		return userRecord{}, fmt.Errorf("user %s: %w", name, ErrExists)
	}
	hash, err := u.hasher.hash(ctx, password)
	if err != nil {
		return userRecord{}, err
	}
	now = now.UTC().Truncate(time.Millisecond)
	return userRecord{Name: name, Admin: admin, Created: now, PasswordChanged: now, Password: hash.String()}, nil
}

func (u *Users) insert(ctx context.Context, r userRecord) error {
	return u.update(ctx, r.Name, func(old []byte) ([]byte, error) {
		if old != nil {
			return nil, fmt.Errorf("user %s: %w", r.Name, ErrExists)
		}
		return json.Marshal(r)
	})
}

// SetPassword changes a password: ErrNotFound, ErrPassword, ErrBusy. Ending the
// user's sessions is Sessions.RevokeUser's part.
func (u *Users) SetPassword(ctx context.Context, name, password string, now time.Time) error {
	if !validPassword(password) {
		return ErrPassword
	}
	if _, ok := u.Lookup(name); !ok {
		return fmt.Errorf("user %s: %w", shown(name), ErrNotFound)
	}
	hash, err := u.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return u.update(ctx, name, func(old []byte) ([]byte, error) {
		if old == nil {
			return nil, fmt.Errorf("user %s: %w", shown(name), ErrNotFound)
		}
		r, err := decodeUser(foldName(name), old)
		if err != nil {
			return nil, err
		}
		r.Password, r.PasswordChanged = hash.String(), now.UTC().Truncate(time.Millisecond)
		return json.Marshal(r)
	})
}

// Remove removes a user: ErrNotFound. Ending the user's sessions is
// Sessions.RevokeUser's part.
func (u *Users) Remove(ctx context.Context, name string) error {
	if !ValidUserName(name) {
		return fmt.Errorf("user %s: %w", shown(name), ErrNotFound)
	}
	return u.update(ctx, name, func(old []byte) ([]byte, error) {
		if old == nil {
			return nil, fmt.Errorf("user %s: %w", shown(name), ErrNotFound)
		}
		return nil, nil
	})
}

// Verify answers whether the password is the user's: ErrCredentials, and no
// sooner for a user who does not exist; ErrBusy.
func (u *Users) Verify(ctx context.Context, name, password string) (User, error) {
	// What nobody can have costs no hashing. The rules are public, so the quick answer tells nothing.
	if password == "" || len(password) > maxPassword || !ValidUserName(name) {
		return User{}, ErrCredentials
	}
	before, known := u.cache.get(foldName(name))
	var stored *passwordHash
	if known {
		stored = &before.hash
	}
	ok, err := u.hasher.matches(ctx, password, stored)
	if err != nil {
		return User{}, err
	}
	// The user may have been removed, or the password changed, meanwhile.
	after, still := u.cache.get(foldName(name))
	if !ok || !still || after.Password != before.Password {
		return User{}, ErrCredentials
	}
	return after.user(), nil
}

// update changes one record and the memory of it.
func (u *Users) update(ctx context.Context, name string, f func(old []byte) ([]byte, error)) error {
	key := foldName(name)
	err := u.store.Update(ctx, BucketUsers, key, func(old []byte) ([]byte, time.Duration, error) {
		text, err := f(old)
		return text, 0, err
	})
	if err != nil {
		return err
	}
	return u.cache.reload(ctx, key)
}

// ValidUserName says whether a name can be a user's. ASCII only: two names that
// look alike are alike.
func ValidUserName(name string) bool {
	if name == "" || len(name) > maxUserName {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-', c == '@':
		default:
			return false
		}
	}
	return true
}

func validPassword(p string) bool { return len(p) >= minPassword && len(p) <= maxPassword }

func foldName(name string) string { return strings.ToLower(name) }

// shown makes a name that may be anything fit for a message.
func shown(name string) string {
	if ValidUserName(name) {
		return name
	}
	if len(name) > maxUserName {
		name = name[:maxUserName]
	}
	return fmt.Sprintf("%q", name)
}
