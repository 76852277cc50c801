package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"callbox/auth"
	"callbox/bus"
)

// maxTokenTTL bounds the life of a token made here: who wants it for ever wants another key.
const maxTokenTTL = 366 * 24 * time.Hour

// tokenCmd makes a room token.
type tokenCmd struct {
	Room string        `name:"room" required:"" placeholder:"ROOM" help:"The one room it opens."`
	User string        `name:"user" required:"" placeholder:"USER" help:"Who its bearer is."`
	Name string        `name:"name" placeholder:"NAME" help:"Name to show to others (the user)."`
	TTL  time.Duration `name:"ttl" default:"1h" placeholder:"DURATION" help:"How long it is valid (1h)."`
	Key  string        `name:"key" placeholder:"ID|ID.SECRET" help:"API key to sign with: an id of the data directory, or a whole key (the newest)."`
	JSON bool          `name:"json" help:"As one JSON object."`
}

// Run makes the token. It only reads the data directory, so it needs no running
// server, and disturbs none; with a whole key it does not even read.
func (cmd *tokenCmd) Run(ctx context.Context, c *call) error {
	if cmd.TTL < time.Second || cmd.TTL > maxTokenTTL {
		return usagef("--ttl must be from 1s to %v", maxTokenTTL)
	}
	now := time.Now()
	t := auth.RoomToken{Subject: cmd.User, Name: cmd.Name, Room: cmd.Room, Expires: now.Add(cmd.TTL).Truncate(time.Second)}
	text, err := cmd.sign(ctx, c, t, now)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return c.printJSON(struct {
			Token     string    `json:"token"`
			ExpiresAt time.Time `json:"expiresAt"`
		}{text, t.Expires.UTC()})
	}
	return c.printf("%s\n", text)
}

func (cmd *tokenCmd) sign(ctx context.Context, c *call, t auth.RoomToken, now time.Time) (string, error) {
	if strings.Contains(cmd.Key, ".") {
		id, secret, ok := auth.SplitKey(cmd.Key)
		if !ok {
			return "", usagef("--key is neither an id nor ID.SECRET")
		}
		return auth.MintWith(id, secret, t, now)
	}
	cfg, _, err := c.config()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(cfg.Data); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no data directory %s; name it with --data, or give a whole key with --key ID.SECRET", cfg.Data)
	}
	store, err := bus.OpenStore(cfg.Data)
	if err != nil {
		return "", err
	}
	keys, err := auth.OpenKeys(ctx, store)
	if err != nil {
		return "", err
	}
	return keys.Mint(cmd.Key, t, now)
}
