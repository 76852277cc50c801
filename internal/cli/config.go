package cli

import (
	"context"
	"fmt"

	"callbox/internal/config"
)

// configCmd shows the configuration in effect.
type configCmd struct {
	config.Config
	JSON bool `name:"json" help:"As one JSON object instead of YAML."`
}

// Run loads the configuration and prints it.
func (cmd *configCmd) Run(_ context.Context, c *call) error {
	cfg, origins, err := c.config()
	if err != nil {
		return err
	}
	if cmd.JSON {
		text, err := cfg.JSON()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.Stdout, "%s\n", text)
		return err
	}
	text, err := cfg.YAML(origins)
	if err != nil {
		return err
	}
	_, err = c.Stdout.Write(text)
	return err
}
