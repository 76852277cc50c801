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

// accounts are the users, API keys and invites of a data directory, be it by a running
// server or directly.
type accounts interface {
	AddUser(ctx context.Context, r control.UserAdd) error
	Users(ctx context.Context) ([]control.User, error)
	SetPassword(ctx context.Context, r control.UserPasswd) error
	RemoveUser(ctx context.Context, name string) error
	AddKey(ctx context.Context, name string) (control.NewKey, error)
	Keys(ctx context.Context) ([]control.Key, error)
	RemoveKey(ctx context.Context, id string) error
	AddInvite(ctx context.Context, r control.InviteAdd) (control.NewInvite, error)
	Invites(ctx context.Context) ([]control.Invite, error)
	RemoveInvite(ctx context.Context, id string) error
}

const (
	// lockWait is how long a command waits for the data directory: another command has it for less than a second, a server
	// that starts or stops for a few.
	lockWait  = 10 * time.Second
	lockRetry = 50 * time.Millisecond
)

// withAccounts does something with the accounts of the configured directory.
// create says that a missing directory is made rather than a mistake.
func (c *call) withAccounts(ctx context.Context, create bool, do func(accounts) error) error {
	cfg, _, err := c.config()
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	again := time.NewTicker(lockRetry)
	defer again.Stop()
	for {
		open, err := c.openAccounts(ctx, cfg, create)
		if err == nil {
			return errors.Join(do(open), open.close())
		}
		if !errors.Is(err, datadir.ErrLocked) {
			return err
		}
		select {
		case <-again.C:
		case <-waiting.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("another callbox uses %s and does not answer on its control socket; try again when it is done, or stop it", cfg.Data)
		}
	}
}

// openAccounts finds the server that runs on the directory, or opens the directory itself. The error is datadir.ErrLocked
// where another command works on it, or a server that does not answer yet or no longer.
func (c *call) openAccounts(ctx context.Context, cfg config.Config, create bool) (closingAccounts, error) {
	client := control.NewClient(cfg.Data)
	switch _, err := client.Health(ctx); {
	case err == nil:
		return remote{client}, nil
	case !errors.Is(err, control.ErrNoServer):
		return nil, err
	}
	if !create {
		if err := mustExist(cfg.Data); err != nil {
			return nil, err
		}
	}
	if _, _, err := c.configWith(app.CheckSecrets); err != nil {
		return nil, err
	}
	return openLocal(ctx, cfg)
}

// mustExist refuses a data directory that is not there, whose name is likely mistyped.
func mustExist(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no data directory %s; name it with --data", dir)
	}
	return nil
}

// closingAccounts are accounts that are closed after use.
type closingAccounts interface {
	accounts
	close() error
}

// remote are the accounts of a running server.
type remote struct{ *control.Client }

func (remote) close() error { return nil }

// local works on the records itself, while no server does on this directory: those of the directory, or in a cluster those
// that its nodes share.
type local struct {
	control.Accounts
	dir *datadir.Dir
	bus bus.Bus
}

func openLocal(ctx context.Context, cfg config.Config) (closingAccounts, error) {
	dir, err := datadir.Open(cfg.Data)
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
	externals, err := auth.OpenExternals(ctx, l.bus)
	if err != nil {
		return err
	}
	keys, err := auth.OpenKeys(ctx, l.bus)
	if err != nil {
		return err
	}
	invites, err := auth.OpenInvites(ctx, l.bus)
	if err != nil {
		return err
	}
	sessions, err := auth.OpenSessions(ctx, l.bus, secrets.Master, cfg.SessionTTL)
	l.Accounts = control.NewAccounts(control.Parts{
		Users: users, Externals: externals, Keys: keys, Invites: invites, Sessions: sessions,
		CredentialTTL: func() time.Duration { return cfg.TURNTTL },
		Bases:         func() []string { return app.LinkBases(cfg) },
	})
	return err
}

func (l *local) close() error {
	var err error
	if l.bus != nil {
		err = l.bus.Close()
	}
	return errors.Join(err, l.dir.Close())
}
