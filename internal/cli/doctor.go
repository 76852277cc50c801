package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"callbox/internal/app"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/datadir"
	"callbox/internal/doctor"
)

// doctorCmd examines a server. It takes all settings of one, for where none runs.
type doctorCmd struct {
	Phone bool `name:"phone" help:"Print a link and QR code; the page behind it tries the server from a phone outside, and its verdicts appear here."`
	JSON  bool `name:"json" help:"As one JSON object: {\"checks\":[{\"name\",\"saw\",\"verdict\",\"remedy\"}]}."`
	config.Config
}

// Help says what the list of flags does not.
func (*doctorCmd) Help() string {
	return "Where a server runs on the data directory, it is asked, and goes by its own settings. Else one is started by those given here, for as long as the examination takes. " +
		"Exit status: 0 where no check fails (there may be warnings), 1 where one does, 2 where the settings are faulty. " +
		"A verdict is ok, warn, fail, or skipped where there is nothing to examine."
}

// errUnwell makes the exit status 1.
var errUnwell = errors.New("the examination has found a fault")

// Run examines and prints.
func (cmd *doctorCmd) Run(ctx context.Context, c *call) error {
	cfg, _, err := c.configWith(app.CheckFiles)
	if err != nil {
		return err
	}
	if cmd.Phone {
		return cmd.phone(ctx, c, cfg)
	}
	progress := c.progress(!cmd.JSON)
	report, err := c.examine(ctx, cfg, progress.tell)
	progress.clear()
	if err != nil {
		return err
	}
	if cmd.JSON {
		err = c.printJSON(report)
	} else {
		err = c.printf("%s", doctorTable(report, c.colours()))
	}
	if err == nil && report.Worst() == doctor.Fail {
		err = fmt.Errorf("%w: %s", errUnwell, report.Summary())
	}
	return err
}

// examine asks the running server, or one that it starts.
func (c *call) examine(ctx context.Context, cfg config.Config, tell func(doctor.Progress)) (doctor.Report, error) {
	report, err := control.NewClient(cfg.Data).Doctor(ctx, tell)
	var old *control.Error
	switch {
	case errors.As(err, &old) && old.Code == control.CodeNotFound:
		return doctor.Report{}, errors.New("the server that runs is of a version without doctor; restart it")
	case errors.Is(err, control.ErrRights):
		return app.Diagnose(ctx, cfg, err, tell), nil
	case !errors.Is(err, control.ErrNoServer):
		return report, err
	}
	err = c.withPatient(ctx, cfg, func(client *control.Client) error {
		report, err = client.Doctor(ctx, tell)
		return err
	})
	var start startError
	if errors.As(err, &start) && ctx.Err() == nil {
		return app.Diagnose(ctx, cfg, start.error, tell), nil
	}
	return report, err
}

// startError says that no server could be started to be examined.
type startError struct{ error }

func (e startError) Unwrap() error { return e.error }

// withPatient starts a server by a configuration, lets f talk to it, and stops it.
func (c *call) withPatient(ctx context.Context, cfg config.Config, f func(*control.Client) error) error {
	opts := app.Options{Version: readVersion().Version, Log: slog.New(slog.DiscardHandler), Patient: true}
	if _, err := os.Stat(cfg.Data); errors.Is(err, os.ErrNotExist) {
		// An examination leaves nothing behind: what a first start would make is made elsewhere.
		dir, err := os.MkdirTemp("", "callbox-doctor-")
		if err != nil {
			return fmt.Errorf("directory for the examination: %w", err)
		}
		defer os.RemoveAll(dir)
		opts.PatientData, cfg.Data = cfg.Data, dir
		opts.PatientDomains, cfg.Domains = cfg.Domains, nil
	} else if err := datadir.CheckOwner(cfg.Data); err != nil {
		return startError{err} // nothing is made in the directory of another user
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg.DrainTimeout = 0
	server, err := app.New(ctx, cfg, opts)
	if err != nil {
		return startError{err}
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	err = f(control.NewClient(cfg.Data)) // the socket is open since New
	cancel()
	return errors.Join(err, <-ended)
}
