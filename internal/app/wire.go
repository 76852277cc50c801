package app

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"callbox/auth"
	"callbox/bus"
	"callbox/bus/memory"
	"callbox/bus/redis"
	"callbox/internal/config"
	"callbox/internal/datadir"
	"callbox/internal/metrics"
	"callbox/relay"
)

// openBus opens the bus. It is a node only once it is started.
func (a *App) openBus(ctx context.Context, store *bus.Store) (bus.Bus, error) {
	if a.opts.OpenBus != nil {
		return a.opts.OpenBus(ctx, store)
	}
	return OpenBus(ctx, a.cfg, a.secrets, store, a.log)
}

// OpenBus opens the bus that a configuration names. Who only needs the shared records does not start it.
func OpenBus(ctx context.Context, cfg config.Config, secrets datadir.Secrets, store *bus.Store, log *slog.Logger) (bus.Bus, error) {
	if !cfg.Clustered() {
		b, err := memory.NewNetwork().Open(memory.Config{Name: cfg.NodeName, Store: store, Log: log})
		if err != nil {
			return nil, err
		}
		return b, nil
	}
	b, err := redis.Open(ctx, redis.Config{
		URL: string(cfg.Bus), Name: cfg.NodeName, Prefix: cfg.BusPrefix,
		Secret: secrets.Cluster, Store: store, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// openAuth reads users of both kinds, keys, invites and revocations.
func (a *App) openAuth(ctx context.Context) error {
	w := &web{log: a.log, now: time.Now, version: a.opts.Version, bus: a.bus}
	var err [6]error
	w.users, err[0] = auth.OpenUsers(ctx, a.bus)
	w.sessions, err[1] = auth.OpenSessions(ctx, a.bus, a.secrets.Master, a.cfg.SessionTTL)
	w.keys, err[2] = auth.OpenKeys(ctx, a.bus)
	w.throttle, err[3] = auth.OpenThrottle(ctx, a.bus)
	w.invites, err[4] = auth.OpenInvites(ctx, a.bus)
	w.externals, err[5] = auth.OpenExternals(ctx, a.bus)
	if err := errors.Join(err[:]...); err != nil {
		return err
	}
	w.setup = auth.NewSetup(a.bus)
	a.web = w
	return a.openOpenID()
}

// wireWeb gives the HTTP side what was opened after it.
func (a *App) wireWeb() {
	w := a.web
	w.hub, w.relay = a.hub, a.relay
	w.ice = a.ice
	w.bases = a.linkBases
	w.publicURL = func() string { return string(a.live.Load().cfg.PublicURL) }
	w.inviters = func() config.Inviters { return a.live.Load().cfg.GuestInvites }
	w.origins = newOrigins(a.cfg.HostNames(), a.allowedOrigin)
	w.compat = newCompat(a.cfg)
	w.trusted = contains(a.cfg.TrustedProxy)
	w.draining, w.linkUp, w.network = a.draining.Load, a.linkUp.Load, a.network
	if a.certs.acme != nil {
		w.challenge = a.certs.acme.AnswerHTTP
	}
	w.certificate, w.authority = a.CertificateState, a.certs.authority
	w.revoked = a.reap
	w.doctor, w.phone = a.doctor.readiness, a.phoneRoutes()
	w.metrics = metrics.Handler(metrics.Sources{
		Bus: a.bus.Stats, Relay: a.relay.Stats, Signal: a.hub.Stats, Ports: a.portStats, Network: a.networkStats, Doctor: a.doctor.stats, Certificate: a.certificateStats,
		Webhook:  a.hookStats,
		Draining: a.draining.Load, Version: a.opts.Version,
	})
}

// turnKeys tells the relay the keys of a user name, and whose it is.
func (a *App) turnKeys(username, realm string, allocate bool) ([][]byte, relay.Owner, error) {
	keys, user, session, err := a.live.Load().turn.Keys(username, realm, allocate, time.Now())
	if err == nil && allocate && !a.phones.allows(user, session) {
		return nil, relay.Owner{}, auth.ErrRevoked
	}
	return keys, relay.Owner{User: user, Session: session}, err
}

// tlsConfig is that of every TLS listener.
func (a *App) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		GetCertificate: a.certs.get, NextProtos: protocols, MinVersion: tls.VersionTLS12,
		// A relay's record is one message (docs/decisions.md), which the first small records would cut up.
		DynamicRecordSizingDisabled: true,
	}
}
