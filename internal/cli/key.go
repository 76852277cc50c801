package cli

import (
	"context"

	"callbox/internal/control"
)

// keyCmd holds the commands about API keys.
type keyCmd struct {
	Add    keyAddCmd    `cmd:"" help:"Make an API key and show it, this once."`
	List   keyListCmd   `cmd:"" help:"List the API keys, without their secrets."`
	Remove keyRemoveCmd `cmd:"" help:"Remove an API key; tokens signed with it stop working."`
}

type keyAddCmd struct {
	Name string `arg:"" help:"What the key is for, to tell it from others."`
	JSON bool   `name:"json" help:"As one JSON object."`
}

// Run makes a key.
func (cmd *keyAddCmd) Run(ctx context.Context, c *call) error {
	return c.withAccounts(ctx, true, func(a accounts) error {
		key, err := a.AddKey(ctx, cmd.Name)
		if err != nil {
			return err
		}
		if cmd.JSON {
			return c.printJSON(key)
		}
		return c.printf("id:     %s\nsecret: %s\nkey:    %s\n\nThe secret is not shown again. Sign room tokens with it as it stands (HS256, kid is the id).\n", key.ID, key.Secret, key.Key)
	})
}

type keyListCmd struct {
	JSON bool `name:"json" help:"As one JSON object."`
}

// Run lists the keys.
func (cmd *keyListCmd) Run(ctx context.Context, c *call) error {
	return c.withAccounts(ctx, false, func(a accounts) error {
		keys, err := a.Keys(ctx)
		if err != nil {
			return err
		}
		if cmd.JSON {
			return c.printJSON(control.KeyList{Keys: keys})
		}
		rows := [][]string{{"ID", "NAME", "CREATED"}}
		for _, k := range keys {
			rows = append(rows, []string{k.ID, k.Name, timestamp(k.Created)})
		}
		return c.printTable(rows)
	})
}

type keyRemoveCmd struct {
	ID string `arg:"" help:"The key's id, as key list shows it."`
}

// Run removes a key.
func (cmd *keyRemoveCmd) Run(ctx context.Context, c *call) error {
	return c.withAccounts(ctx, false, func(a accounts) error {
		if err := a.RemoveKey(ctx, cmd.ID); err != nil {
			return err
		}
		return c.printf("removed API key %s; tokens signed with it no longer work\n", cmd.ID)
	})
}
