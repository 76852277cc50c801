package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"callbox/auth"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/datadir"
	"callbox/relay"
)

// live is what a running server can change: computed whole from a configuration, swapped whole, never written to.
type live struct {
	cfg    config.Config // its other settings are those of the start
	turn   auth.TURN
	policy *relay.Policy
	addrs  []netip.Addr // of this host
	public []netip.Addr // by which the relay is reached from outside, where they are not the host's own
}

// newLive reads what the settings name. It reports every fault.
func (a *App) newLive(cfg config.Config, secrets [][]byte, addrs []netip.Addr) (*live, error) {
	policy, err := relay.ParsePolicy(texts(cfg.AllowPeer), texts(cfg.DenyPeer))
	return &live{
		cfg:    cfg,
		turn:   auth.TURN{Secrets: secrets, Realm: cfg.Realm, Revoked: a.web.sessions.RevokedHandle},
		policy: policy,
		addrs:  addrs,
		public: a.publicAddrs(cfg),
	}, err
}

// take makes it what the server goes by from now on. Clients are told where they would be given other servers now.
func (a *App) take(l *live) {
	was := a.live.Swap(l)
	a.relay.SetPublic(l.public)
	if !slices.Equal(was.public, l.public) || !sameServers(was.cfg, l.cfg) {
		a.hub.RenewICE()
	}
	if a.opts.LogLevel != nil {
		a.opts.LogLevel.Set(l.cfg.LogLevel)
	}
	a.doctor.soon()
}

// sameServers says whether two configurations name the same servers to clients.
func sameServers(a, b config.Config) bool {
	return a.TURNHost == b.TURNHost && a.TURNS == b.TURNS && slices.Equal(a.TURNURLs, b.TURNURLs) && slices.Equal(a.ICEServers, b.ICEServers)
}

// errReload says that a configuration that was read again has faults, and that nothing has changed.
var errReload = errors.New("the configuration is faulty; nothing has changed")

// reload reads the configuration again and takes over what can change.
func (a *App) reload() (control.Reloaded, error) {
	if a.opts.Reload == nil {
		return control.Reloaded{}, fmt.Errorf("%w: this server was not started from one", errReload)
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	a.opts.Supervisor.tell(stateReloading)
	defer a.opts.Supervisor.tell(stateReady)
	next, err := a.opts.Reload()
	if err != nil {
		return control.Reloaded{}, fmt.Errorf("%w:\n%w", errReload, err)
	}
	was := a.live.Load()
	merged, changed, restart := was.cfg.Reload(next)
	secrets, errSecrets := a.dir.Secrets(SecretOptions(merged))
	l, errPolicy := a.newLive(merged, secrets.TURN, was.addrs)
	if err := errors.Join(errSecrets, errPolicy); err != nil {
		return control.Reloaded{}, fmt.Errorf("%w:\n%w", errReload, err)
	}
	files, err := a.takeFiles()
	if err != nil {
		return control.Reloaded{}, fmt.Errorf("%w:\n%w", errReload, err)
	}
	const turnKey = "turn-secret-file"
	hangs := false // the TURN secrets hang on the cluster secret
	if !slices.Equal(secrets.Cluster, a.secrets.Cluster) {
		// So do sessions and the records of the cluster, which do not change while the server runs.
		key := "cluster-secret-file"
		if merged.ClusterSecretFile == "" {
			key = turnKey
		}
		restart = append(restart, key)
		hangs = merged.ClusterSecretFile == "" || merged.TURNSecretFile == ""
	}
	switch {
	case hangs:
		l.turn.Secrets, l.cfg.TURNSecretFile = was.turn.Secrets, was.cfg.TURNSecretFile
		changed = slices.DeleteFunc(changed, func(key string) bool { return key == turnKey })
	case !slices.EqualFunc(secrets.TURN, was.turn.Secrets, slices.Equal) && !slices.Contains(changed, turnKey):
		changed = append(changed, turnKey) // the same file with another content
	}
	a.take(l)
	if a.certs.files != nil && a.certs.files.Again() {
		changed = append(changed, "tls-cert")
	}
	if a.certs.acme != nil {
		a.certs.acme.Retry() // what was in the way may be gone
	}
	a.changes.addAll() // users, keys and revocations, as they are in the store
	changed = append(changed, files...)
	if a.watcher != nil {
		a.watcher.Look()
	}
	a.log.Info("configuration read again", logChanged, strings.Join(changed, " "), logRestart, strings.Join(restart, " "))
	return control.Reloaded{Changed: append([]string{}, changed...), Restart: append([]string{}, restart...)}, nil
}

// takeFiles takes over what somebody else has changed in the files of users, keys and other records, and returns their names. In
// a cluster what all nodes share holds, and the files follow it.
func (a *App) takeFiles() ([]string, error) {
	if a.cfg.Clustered() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), changeTimeout)
	defer cancel()
	foreign, err := a.store.Foreign(ctx)
	if err != nil {
		return nil, err
	}
	var files []string
	for bucket, records := range foreign {
		files = append(files, bucket+".json")
		for key, r := range records {
			err := a.bus.Update(ctx, bucket, key, func([]byte) ([]byte, time.Duration, error) {
				now := time.Now()
				switch {
				case !r.Deleted && r.Expires.IsZero():
					return r.Value, 0, nil
				case !r.Deleted && now.Before(r.Expires):
					return r.Value, r.Expires.Sub(now), nil
				}
				return nil, 0, nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(files)
	return files, nil
}

// SecretOptions say where the configuration has its secrets.
func SecretOptions(cfg config.Config) datadir.SecretOptions {
	return datadir.SecretOptions{TURNFile: cfg.TURNSecretFile, ClusterFile: cfg.ClusterSecretFile, Clustered: cfg.Clustered()}
}

// allowPeer asks the rules in force.
func (a *App) allowPeer(peer netip.AddrPort) bool { return a.live.Load().policy.Allow(peer) }

// allowedOrigin says whether pages of an origin may use the API.
func (a *App) allowedOrigin(origin string) bool {
	return slices.Contains(a.live.Load().cfg.Origins, config.Origin(origin))
}
