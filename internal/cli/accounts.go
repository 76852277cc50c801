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
	if _, _, err := c.configWith(app.CheckSecrets); err != nil {
		return err
	}
	local, err := openLocal(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(do(local), local.close())
}

// local works on the records itself, while no server does on this directory: those of the directory, or in a cluster those
// that its nodes share.
type local struct {
	control.Accounts
	dir *datadir.Dir
	bus bus.Bus
}

func openLocal(ctx context.Context, cfg config.Config) (*local, error) {
	dir, err := datadir.Open(cfg.Data)
	if errors.Is(err, datadir.ErrLocked) {
		return nil, fmt.Errorf("a server runs on %s but does not answer on its control socket; try again, or stop it first", cfg.Data)
	}
	if err != nil {
		return nil, err
	}
	l := &local{dir: dir}
	if err := l.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, l.close())
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
	if l.bus, err = app.OpenBus(ctx, cfg, secrets, store, nil); err != nil {
		return err
	}
	users, err := auth.OpenUsers(ctx, l.bus)
	if err != nil {
		return err
	}
	keys, err := auth.OpenKeys(ctx, l.bus)
	if err != nil {
		return err
	}
	sessions, err := auth.OpenSessions(ctx, l.bus, secrets.Master, cfg.SessionTTL)
	l.Accounts = control.NewAccounts(users, keys, sessions, func() time.Duration { return cfg.TURNTTL })
	return err
}

func (l *local) close() error {
	var err error
	if l.bus != nil {
		err = l.bus.Close()
	}
	return errors.Join(err, l.dir.Close())
}
