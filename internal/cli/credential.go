package cli

import (
	"context"
	"time"

	"callbox/auth"
	"callbox/internal/datadir"
)

// credentialCmd makes a TURN credential.
type credentialCmd struct {
	User string        `name:"user" required:"" placeholder:"USER" help:"Whom it is for: quotas count by user, and removing the user revokes it."`
	TTL  time.Duration `name:"ttl" placeholder:"DURATION" help:"How long it can start relaying (the setting turn-ttl, 1h)."`
	JSON bool          `name:"json" help:"As one JSON object."`
}

// Run computes the credential from the TURN secret. It needs no running server.
func (cmd *credentialCmd) Run(_ context.Context, c *call) error {
	cfg, _, err := c.config()
	if err != nil {
		return err
	}
	ttl := cmd.TTL
	if ttl == 0 {
		ttl = cfg.TURNTTL
	}
	if ttl < time.Second || ttl > auth.MaxHandleLife {
		return usagef("--ttl must be from 1s to %v", auth.MaxHandleLife)
	}
	if cmd.User == "" || len(cmd.User) > 128 {
		return usagef("--user must have 1 to 128 bytes")
	}
	dir, err := datadir.At(cfg.Data)
	if err != nil {
		return err
	}
	if err := datadir.CheckOwner(cfg.Data); err != nil {
		return err
	}
	secrets, err := dir.Secrets(secretOptions(cfg))
	if err != nil {
		return err
	}
	now := time.Now()
	turn := auth.TURN{Secrets: secrets.TURN, Realm: cfg.Realm}
	username, password, expires := turn.Credential(auth.Handle(secrets.Master, cmd.User, auth.NewSessionID(now)), ttl, now)
	if cmd.JSON {
		return c.printJSON(struct {
			Username  string    `json:"username"`
			Password  string    `json:"password"`
			Realm     string    `json:"realm"`
			ExpiresAt time.Time `json:"expiresAt"`
		}{username, password, cfg.Realm, expires.UTC()})
	}
	return c.printf("username: %s\npassword: %s\nexpires:  %s\n", username, password, timestamp(expires))
}
