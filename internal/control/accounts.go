package control

import (
	"context"
	"errors"
	"time"

	"callbox/auth"
)

// Accounts are users, API keys and invites as commands change them: the same by a running server and without one. What
// hangs on a removed account is the server's to end.
type Accounts struct {
	p Parts
}

// Parts are what accounts work on: what auth has opened, and two things that only a server or its configuration knows.
type Parts struct {
	Users     *auth.Users
	Externals *auth.Externals
	Keys      *auth.Keys
	Invites   *auth.Invites
	Sessions  *auth.Sessions
	// CredentialTTL is the longest life of a TURN credential given for a token.
	CredentialTTL func() time.Duration
	// Bases are the URLs by which others reach the server, without a slash at their end, the most general first.
	Bases func() []string
}

// NewAccounts returns accounts over their parts.
func NewAccounts(p Parts) Accounts { return Accounts{p} }

// AddUser makes a user.
func (a Accounts) AddUser(ctx context.Context, r UserAdd) error {
	return a.p.Users.Add(ctx, r.Name, r.Password, r.Admin, time.Now())
}

// Users lists the users, those of the OpenID provider after the others.
func (a Accounts) Users(context.Context) ([]User, error) {
	out := []User{}
	for _, u := range a.p.Users.List() {
		out = append(out, User(u))
	}
	for _, e := range a.p.Externals.List() {
		out = append(out, User{Name: e.Name, Created: e.Created})
	}
	return out, nil
}

// SetPassword changes a password and ends the user's sessions.
func (a Accounts) SetPassword(ctx context.Context, r UserPasswd) error {
	if err := a.p.Users.SetPassword(ctx, r.Name, r.Password, time.Now()); err != nil {
		return err
	}
	return a.endSessions(ctx, r.Name)
}

// RemoveUser removes a user with the invites that the user made, and ends the sessions of all of them.
func (a Accounts) RemoveUser(ctx context.Context, name string) error {
	remove := a.p.Users.Remove
	if auth.IsExternal(name) {
		remove = a.p.Externals.Remove
	}
	if err := remove(ctx, name); err != nil {
		return err
	}
	return errors.Join(a.endSessions(ctx, name), a.removeInvitesBy(context.WithoutCancel(ctx), name))
}

// endSessions goes on where the caller has given up meanwhile: what it belongs to has happened.
func (a Accounts) endSessions(ctx context.Context, user string) error {
	return a.p.Sessions.RevokeUser(context.WithoutCancel(ctx), user, time.Now())
}

// AddKey makes an API key.
func (a Accounts) AddKey(ctx context.Context, name string) (NewKey, error) {
	id, secret, err := a.p.Keys.Add(ctx, name, time.Now())
	return NewKey{ID: id, Secret: secret, Key: auth.JoinKey(id, secret)}, err
}

// Keys lists the API keys.
func (a Accounts) Keys(context.Context) ([]Key, error) {
	out := []Key{}
	for _, k := range a.p.Keys.List() {
		out = append(out, Key(k))
	}
	return out, nil
}

// RemoveKey removes an API key and revokes the TURN credentials that holders of its tokens were given.
func (a Accounts) RemoveKey(ctx context.Context, id string) error {
	if err := a.p.Keys.Remove(ctx, id); err != nil {
		return err
	}
	now := time.Now()
	session := auth.Session{ID: auth.KeySession(id), Expires: now.Add(a.p.CredentialTTL())}
	return a.p.Sessions.Revoke(context.WithoutCancel(ctx), session, now)
}
