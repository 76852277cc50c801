package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"callbox/internal/config"
	"callbox/internal/control"
)

// reloadCmd makes the running server read its configuration again.
type reloadCmd struct {
	JSON bool `name:"json" help:"As one JSON object."`
}

// Help says what can change.
func (cmd *reloadCmd) Help() string {
	return "Flags stay as they were given; the file and what it names are read again. Where there is a fault, nothing changes. These settings can change: " +
		strings.Join(config.Reloadable(), ", ") + ". Others wait for a restart, and are named."
}

// Run asks the server and says what came of it.
func (cmd *reloadCmd) Run(ctx context.Context, c *call) error {
	cfg, _, err := c.config()
	if err != nil {
		return err
	}
	done, err := control.NewClient(cfg.Data).Reload(ctx)
	if errors.Is(err, control.ErrNoServer) {
		return fmt.Errorf("%w (%s); name its directory with --data", err, cfg.Data)
	}
	var refusal *control.Error
	if errors.As(err, &refusal) && refusal.Code == control.CodeBadConfig {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if cmd.JSON {
		return c.printJSON(done)
	}
	changed := "nothing has changed"
	if len(done.Changed) > 0 {
		changed = "changed: " + strings.Join(done.Changed, ", ")
	}
	if len(done.Restart) > 0 {
		changed += "\nneeds a restart: " + strings.Join(done.Restart, ", ")
	}
	return c.printf("%s\n", changed)
}
