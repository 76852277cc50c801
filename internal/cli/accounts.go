package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"callbox/auth"
	"callbox/bus"
	"callbox/internal/app"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/datadir"
)

// accounts are the users and API keys of a data directory, be it by a running
// server or directly.
type accounts interface {
	AddUser(ctx context.Context, r control.UserAdd) error
	Users(ctx context.Context) ([]control.User, error)
	SetPassword(ctx context.Context, r control.UserPasswd) error
	RemoveUser(ctx context.Context, name string) error
	AddKey(ctx context.Context, name string) (control.NewKey, error)
	Keys(ctx context.Context) ([]control.Key, error)
	RemoveKey(ctx context.Context, id string) error
}

// withAccounts does something with the accounts of the configured directory.
// create says that a missing directory is made rather than a mistake.
func (c *call) withAccounts(ctx context.Context, create bool, do func(accounts) error) error {
	cfg, _, err := c.config()
	if err != nil {
		return err
	}
	client := control.NewClient(cfg.Data)
	switch _, err := client.Health(ctx); {
	case err == nil:
		return do(client)
	case !errors.Is(err, control.ErrNoServer):
		return err
	}
	if !create {
		if _, err := os.Stat(cfg.Data); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no data directory %s; name it with --data", cfg.Data)
		}
	}
	local, err := openLocal(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(do(local), local.dir.Close())
}

// local works on the data directory itself, while no server does.
type local struct {
	dir      *datadir.Dir
	users    *auth.Users
	keys     *auth.Keys
	sessions *auth.Sessions
	turnTTL  time.Duration // the longest life of a credential given for a token
}

func openLocal(ctx context.Context, cfg config.Config) (*local, error) {
	dir, err := datadir.Open(cfg.Data)
	if errors.Is(err, datadir.ErrLocked) {
		return nil, fmt.Errorf("a server runs on %s but does not answer on its control socket; try again, or stop it first", cfg.Data)
	}
	if err != nil {
		return nil, err
	}
	l := &local{dir: dir, turnTTL: cfg.TURNTTL}
	if err := l.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return l, nil
}

func (l *local) open(ctx context.Context, cfg config.Config) error {
	if err := datadir.CheckOwner(cfg.Data); err != nil {
		return err
	}
	secrets, err := l.dir.Secrets(app.SecretOptions(cfg))
	if err != nil {
		return err
	}
	store, err := bus.OpenStore(l.dir.Path())
	if err != nil {
		return err
	}
	if l.users, err = auth.OpenUsers(ctx, store); err != nil {
		return err
	}
	if l.keys, err = auth.OpenKeys(ctx, store); err != nil {
		return err
	}
	l.sessions, err = auth.OpenSessions(ctx, store, secrets.Master, cfg.SessionTTL)
	return err
}

func (l *local) AddUser(ctx context.Context, r control.UserAdd) error {
	return l.users.Add(ctx, r.Name, r.Password, r.Admin, time.Now())
}

func (l *local) Users(context.Context) ([]control.User, error) {
	out := []control.User{}
	for _, u := range l.users.List() {
		out = append(out, control.User(u))
	}
	return out, nil
}

func (l *local) SetPassword(ctx context.Context, r control.UserPasswd) error {
	if err := l.users.SetPassword(ctx, r.Name, r.Password, time.Now()); err != nil {
		return err
	}
	return l.sessions.RevokeUser(ctx, r.Name, time.Now())
}

func (l *local) RemoveUser(ctx context.Context, name string) error {
	if err := l.users.Remove(ctx, name); err != nil {
		return err
	}
	return l.sessions.RevokeUser(ctx, name, time.Now())
}

func (l *local) AddKey(ctx context.Context, name string) (control.NewKey, error) {
	id, secret, err := l.keys.Add(ctx, name, time.Now())
	return control.NewKey{ID: id, Secret: secret, Key: auth.JoinKey(id, secret)}, err
}

func (l *local) Keys(context.Context) ([]control.Key, error) {
	out := []control.Key{}
	for _, k := range l.keys.List() {
		out = append(out, control.Key(k))
	}
	return out, nil
}

// RemoveKey also revokes the TURN credentials that holders of the key's tokens were given.
func (l *local) RemoveKey(ctx context.Context, id string) error {
	if err := l.keys.Remove(ctx, id); err != nil {
		return err
	}
	now := time.Now()
	return l.sessions.Revoke(ctx, auth.Session{ID: auth.KeySession(id), Expires: now.Add(l.turnTTL)}, now)
}
