package cli

import (
	"context"
	"errors"
	"time"

	"callbox/auth"
	"callbox/internal/app"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/datadir"
)

// credentialCmd makes a TURN credential.
type credentialCmd struct {
	User string        `name:"user" required:"" placeholder:"USER" help:"Whom it is for: quotas count by user, and removing the user revokes it."`
	TTL  time.Duration `name:"ttl" placeholder:"DURATION" help:"How long it can start relaying (the setting turn-ttl, 1h)."`
	JSON bool          `name:"json" help:"As one JSON object."`
}

// Run lets the running server make it, whose secret and realm may come from flags of its own. Without a server it is computed
// from the configuration.
func (cmd *credentialCmd) Run(ctx context.Context, c *call) error {
	cfg, _, err := c.config()
	if err != nil {
		return err
	}
	if cmd.TTL != 0 && cmd.TTL < time.Second { // would count as not given
		return usagef("--ttl must be from 1s to %v", auth.MaxHandleLife)
	}
	request := control.CredentialRequest{User: cmd.User, TTLSeconds: int64(cmd.TTL / time.Second)}
	if err := request.Check(); err != nil {
		return usageError{err}
	}
	made, err := control.NewClient(cfg.Data).Credential(ctx, request)
	if errors.Is(err, control.ErrNoServer) {
		if _, _, err := c.configWith(app.CheckSecrets); err != nil {
			return err
		}
		if cfg.TURNSecretFile == "" && cfg.ClusterSecretFile == "" {
			if err := mustExist(cfg.Data); err != nil { // a new secret is one that no server knows
				return err
			}
		}
		made, err = localCredential(cfg, request)
	}
	if err != nil {
		return err
	}
	if cmd.JSON {
		return c.printJSON(made)
	}
	return c.printf("username: %s\npassword: %s\nexpires:  %s\n", made.Username, made.Password, timestamp(made.ExpiresAt))
}

func localCredential(cfg config.Config, request control.CredentialRequest) (control.Credential, error) {
	dir, err := datadir.At(cfg.Data)
	if err != nil {
		return control.Credential{}, err
	}
	if err := datadir.CheckOwner(cfg.Data); err != nil {
		return control.Credential{}, err
	}
	secrets, err := dir.Secrets(app.SecretOptions(cfg))
	if err != nil {
		return control.Credential{}, err
	}
	return request.Make(auth.TURN{Secrets: secrets.TURN, Realm: cfg.Realm}, secrets.Master, cfg.TURNTTL, time.Now())
}
