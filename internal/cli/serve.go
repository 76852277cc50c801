package cli

import (
	"context"
	"errors"
	"log/slog"

	"callbox/internal/app"
	"callbox/internal/config"
)

// serveCmd runs the server until its context ends.
type serveCmd struct {
	config.Config
}

// Help says what the list of flags does not.
func (*serveCmd) Help() string {
	return "Each setting is also a variable (CALLBOX_TURN_TTL) and a key of the file (turn-ttl). A list in a variable is separated by spaces. callbox config shows what is in effect; callbox reload, or SIGHUP where no terminal is, takes changes over."
}

// Run opens everything, serves, and closes everything.
func (*serveCmd) Run(ctx context.Context, c *call) error {
	cfg, _, err := c.configWith(app.CheckFiles)
	if err != nil {
		return err
	}
	handed, err := app.TakeSockets(c.Sockets)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(cfg.LogLevel)
	opts := app.Options{
		Log: c.logger(cfg, level), LogLevel: level, Version: readVersion().Version,
		Hangup: c.Hangup, Supervisor: c.Supervisor, Handed: handed,
	}
	if c.Terminal && cfg.LogFormat != config.LogJSON {
		opts.Stdout, opts.TerminalSize = c.Stdout, c.size
	}
	opts.Reload = func() (config.Config, error) {
		cfg, _, err := c.configWith(app.CheckSecrets)
		return cfg, err
	}
	server, err := app.New(ctx, cfg, opts)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil // asked to stop before it had started
	}
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

// logger writes to standard error: text for a person, JSON for a machine.
func (c *call) logger(cfg config.Config, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == config.LogText || cfg.LogFormat == config.LogAuto && c.Terminal {
		return slog.New(slog.NewTextHandler(c.Stderr, options))
	}
	return slog.New(slog.NewJSONHandler(c.Stderr, options))
}
