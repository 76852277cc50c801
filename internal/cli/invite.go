package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"callbox/auth"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/qr"
)

// inviteCmd makes guest links, and holds the commands about them.
type inviteCmd struct {
	Add    inviteAddCmd    `cmd:"" default:"withargs" help:"Make a guest link. This is what invite does when nothing else is asked for."`
	List   inviteListCmd   `cmd:"" help:"List the invites that have not ended, without their links."`
	Remove inviteRemoveCmd `cmd:"" help:"Remove an invite; its guests leave the call at once."`
}

type inviteAddCmd struct {
	Room string        `name:"room" required:"" placeholder:"ROOM" help:"The one room that guests may join."`
	TTL  time.Duration `name:"ttl" default:"24h" placeholder:"DURATION" help:"How long the link, and whoever came by it, is let in (24h)."`
	Uses int           `name:"uses" default:"8" placeholder:"N" help:"How many guests it lets in (8)."`
	QR   string        `name:"qr" type:"raw" placeholder:"auto|off" help:"Show the link as a QR code where the terminal is large enough (auto)."`
	JSON bool          `name:"json" help:"As one JSON object."`
}

// Run makes an invite.
func (cmd *inviteAddCmd) Run(ctx context.Context, c *call) error {
	if cmd.TTL < auth.MinInviteTTL || cmd.TTL > auth.MaxInviteTTL {
		return usagef("--ttl must be from %v to %v", auth.MinInviteTTL, auth.MaxInviteTTL)
	}
	if cmd.Uses < 1 || cmd.Uses > auth.MaxInviteUses {
		return usagef("--uses must be from 1 to %d", auth.MaxInviteUses)
	}
	cfg, _, err := c.config()
	if err != nil {
		return err
	}
	return c.withAccounts(ctx, false, func(a accounts) error {
		invite, err := a.AddInvite(ctx, control.InviteAdd{Room: cmd.Room, TTLSeconds: int64(cmd.TTL / time.Second), Uses: cmd.Uses})
		if err != nil {
			return err
		}
		if cmd.JSON {
			return c.printJSON(invite)
		}
		return c.showInvite(cfg, invite)
	})
}

func (c *call) showInvite(cfg config.Config, invite control.NewInvite) error {
	for _, url := range invite.URLs {
		if err := c.printf("%s\n", url); err != nil {
			return err
		}
	}
	if !c.Terminal {
		return nil // a program takes the first line
	}
	guests := strconv.Itoa(invite.Uses) + " guests"
	if invite.Uses == 1 {
		guests = "1 guest"
	}
	if err := c.printf("\nIt lets %s into the room %s until %s, and is not shown again.\nTo withdraw it: callbox invite remove %s\n",
		guests, invite.Room, timestamp(invite.ExpiresAt), invite.ID); err != nil {
		return err
	}
	columns, lines := c.size()
	if cfg.QR == config.Off || !qr.Fits(invite.URL, columns, lines) {
		return nil
	}
	if err := c.printf("\n"); err != nil {
		return err
	}
	return qr.Print(c.Stdout, invite.URL)
}

type inviteListCmd struct {
	JSON bool `name:"json" help:"As one JSON object."`
}

// Run lists the invites.
func (cmd *inviteListCmd) Run(ctx context.Context, c *call) error {
	return c.withAccounts(ctx, false, func(a accounts) error {
		invites, err := a.Invites(ctx)
		if err != nil {
			return err
		}
		if cmd.JSON {
			return c.printJSON(control.InviteList{Invites: invites})
		}
		rows := [][]string{{"ID", "ROOM", "USED", "UNTIL", "BY"}}
		for _, i := range invites {
			by := i.By
			if by == "" {
				by = "-"
			}
			rows = append(rows, []string{i.ID, i.Room, fmt.Sprintf("%d of %d", i.Used, i.Uses), timestamp(i.ExpiresAt), by})
		}
		return c.printTable(rows)
	})
}

type inviteRemoveCmd struct {
	ID string `arg:"" help:"The invite's id, as invite list shows it."`
}

// Run removes an invite.
func (cmd *inviteRemoveCmd) Run(ctx context.Context, c *call) error {
	return c.withAccounts(ctx, false, func(a accounts) error {
		if err := a.RemoveInvite(ctx, cmd.ID); err != nil {
			return err
		}
		return c.printf("removed invite %s; its guests are no longer let in\n", cmd.ID)
	})
}
