package control

import (
	"context"
	"time"

	"callbox/auth"
)

// Accounts are users and API keys as commands change them: the same by a running server and without one. What hangs on a
// removed account is the server's to end.
type Accounts struct {
	users         *auth.Users
	keys          *auth.Keys
	sessions      *auth.Sessions
	credentialTTL func() time.Duration
}

// NewAccounts returns accounts over what auth has opened. credentialTTL is the longest life of a TURN credential given for a
// token.
func NewAccounts(users *auth.Users, keys *auth.Keys, sessions *auth.Sessions, credentialTTL func() time.Duration) Accounts {
	return Accounts{users: users, keys: keys, sessions: sessions, credentialTTL: credentialTTL}
}

// AddUser makes a user.
func (a Accounts) AddUser(ctx context.Context, r UserAdd) error {
	return a.users.Add(ctx, r.Name, r.Password, r.Admin, time.Now())
}

// Users lists the users.
func (a Accounts) Users(context.Context) ([]User, error) {
	out := []User{}
	for _, u := range a.users.List() {
		out = append(out, User(u))
	}
	return out, nil
}

// SetPassword changes a password and ends the user's sessions.
func (a Accounts) SetPassword(ctx context.Context, r UserPasswd) error {
	if err := a.users.SetPassword(ctx, r.Name, r.Password, time.Now()); err != nil {
		return err
	}
	return a.endSessions(ctx, r.Name)
}

// RemoveUser removes a user and ends the user's sessions.
func (a Accounts) RemoveUser(ctx context.Context, name string) error {
	if err := a.users.Remove(ctx, name); err != nil {
		return err
	}
	return a.endSessions(ctx, name)
}

// endSessions goes on where the caller has given up meanwhile: what it belongs to has happened.
func (a Accounts) endSessions(ctx context.Context, user string) error {
	return a.sessions.RevokeUser(context.WithoutCancel(ctx), user, time.Now())
}

// AddKey makes an API key.
func (a Accounts) AddKey(ctx context.Context, name string) (NewKey, error) {
	id, secret, err := a.keys.Add(ctx, name, time.Now())
	return NewKey{ID: id, Secret: secret, Key: auth.JoinKey(id, secret)}, err
}

// Keys lists the API keys.
func (a Accounts) Keys(context.Context) ([]Key, error) {
	out := []Key{}
	for _, k := range a.keys.List() {
		out = append(out, Key(k))
	}
	return out, nil
}

// RemoveKey removes an API key and revokes the TURN credentials that holders of its tokens were given.
func (a Accounts) RemoveKey(ctx context.Context, id string) error {
	if err := a.keys.Remove(ctx, id); err != nil {
		return err
	}
	now := time.Now()
	session := auth.Session{ID: auth.KeySession(id), Expires: now.Add(a.credentialTTL())}
	return a.sessions.Revoke(context.WithoutCancel(ctx), session, now)
}
