package app

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"callbox/auth"
	"callbox/bus"
	"callbox/bus/memory"
	"callbox/bus/redis"
	"callbox/internal/config"
	"callbox/internal/datadir"
	"callbox/internal/metrics"
	"callbox/relay"
	"callbox/signal"
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

// openAuth reads users, keys and revocations.
func (a *App) openAuth(ctx context.Context) error {
	w := &web{log: a.log, now: time.Now, version: a.opts.Version, bus: a.bus}
	var err [4]error
	w.users, err[0] = auth.OpenUsers(ctx, a.bus)
	w.sessions, err[1] = auth.OpenSessions(ctx, a.bus, a.secrets.Master, a.cfg.SessionTTL)
	w.keys, err[2] = auth.OpenKeys(ctx, a.bus)
	w.throttle, err[3] = auth.OpenThrottle(ctx, a.bus)
	if err := errors.Join(err[:]...); err != nil {
		return err
	}
	w.setup = auth.NewSetup(a.bus)
	a.web = w
	return nil
}

// wireWeb gives the HTTP side what was opened after it.
func (a *App) wireWeb() {
	w := a.web
	w.hub, w.relay = a.hub, a.relay
	w.ice = a.ice
	w.origins = newOrigins(a.cfg.Names, a.allowedOrigin)
	w.trusted = contains(a.cfg.TrustedProxy)
	w.draining, w.linkUp = a.draining.Load, a.linkUp.Load
	w.revoked = a.reap
	w.metrics = metrics.Handler(metrics.Sources{
		Bus: a.bus.Stats, Relay: a.relay.Stats, Signal: a.hub.Stats, Ports: a.portStats,
		Draining: a.draining.Load, Version: a.opts.Version,
	})
}

// turnKeys tells the relay the keys of a user name, and whose it is.
func (a *App) turnKeys(username, realm string, allocate bool) ([][]byte, relay.Owner, error) {
	keys, user, session, err := a.live.Load().turn.Keys(username, realm, allocate, time.Now())
	return keys, relay.Owner{User: user, Session: session}, err
}

// ice computes the servers and the credential for a caller who used that host.
func (a *App) ice(c caller, host string, relayNode bus.NodeID) signal.ICE {
	now, l := time.Now(), a.live.Load()
	ttl := l.cfg.TURNTTL
	// A credential does not outlive what it was given for, so that revocations need not be remembered for longer.
	if left := c.Expires.Sub(now); !c.Expires.IsZero() && left < ttl {
		ttl = max(left, time.Second)
	}
	offer := a.offer(host)
	offer.Nodes, offer.Self, offer.Relay = a.bus.Nodes(), a.bus.Self(), relayNode
	offer.Only = a.cfg.RelayPorts.None()
	var expires time.Time
	offer.Username, offer.Credential, expires = l.turn.Credential(auth.Handle(a.secrets.Master, c.Owner, c.Session), ttl, now)
	return signal.ICE{Servers: offer.servers(), TTLSeconds: int(ttl / time.Second), ExpiresAt: expires.UTC()}
}

// offer is what this node can offer by itself to clients who use that host.
func (a *App) offer(host string) iceOffer {
	cfg := a.live.Load().cfg
	o := iceOffer{
		Host: host, Name: cfg.TURNHost, Public: cfg.PublicIP, Port: int(a.addr.Port()), Extra: a.turns,
		UDP: true, TLS: a.offersTLS, Drain: a.draining.Load(),
	}
	for _, u := range cfg.TURNURLs {
		o.URLs = append(o.URLs, string(u))
	}
	for _, s := range cfg.ICEServers {
		o.Others = append(o.Others, signal.ICEServer{URLs: []string{s.URL}, Username: s.Username, Credential: s.Credential})
	}
	return o
}

// offersTLS is --turns for one host.
func (a *App) offersTLS(host string) bool {
	switch a.live.Load().cfg.TURNS {
	case config.On:
		return true
	case config.Off:
		return false
	}
	return a.certs.publiclyTrusted(host, time.Now())
}

// announcedURLs are the TURN URLs of this node as other nodes give them to their clients.
func (a *App) announcedURLs() []string {
	host := a.addr.Addr()
	if host.IsUnspecified() {
		if addrs := preferred(a.live.Load().addrs); len(addrs) > 0 {
			host = addrs[0]
		} else {
			host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	o := a.offer(host.String())
	if len(o.URLs) > 0 {
		return o.URLs
	}
	var turns []string
	for _, u := range o.local() {
		if u[:4] == "turn" {
			turns = append(turns, u)
		}
	}
	return turns
}

// announce tells the other nodes of this one until the context ends.
func (a *App) announce(ctx context.Context) {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	failed := false
	for {
		call, cancel := context.WithTimeout(ctx, announceEvery)
		err := a.announceOnce(call)
		cancel()
		if err != nil && !failed && ctx.Err() == nil {
			a.log.Warn("other nodes do not hear of this one", logError, err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *App) announceOnce(ctx context.Context) error {
	return a.bus.Announce(ctx, bus.NodeInfo{
		TURN:        a.announcedURLs(),
		Allocations: a.allocations(),
		Connections: a.hub.Connections(),
		Draining:    a.draining.Load(),
	})
}

// allocations is the load of the relay.
func (a *App) allocations() (n int) {
	for _, open := range a.relay.Stats().Allocations {
		n += open
	}
	return n
}

// portStats sums the counters of all listeners.
func (a *App) portStats() metrics.PortStats {
	out := metrics.PortStats{Connections: map[string]uint64{}, Refused: map[string]uint64{}}
	for _, p := range append([]*port{a.port}, a.extra...) {
		for name, n := range map[string]uint64{
			"http": p.stats.HTTP.Load(), "tls": p.stats.TLS.Load(), "stream": p.stats.Stream.Load(), "proxy": p.stats.Proxy.Load(),
		} {
			out.Connections[name] += n
		}
		for name, n := range map[string]uint64{
			"per-address": p.stats.Refused.Load(), "timeout": p.stats.Timeout.Load(),
			"malformed": p.stats.Malformed.Load(), "accept-error": p.stats.AcceptFailures.Load(),
		} {
			out.Refused[name] += n
		}
	}
	return out
}

// metricsHandler answers --metrics-listen, which is open to whoever can reach it.
func (s *web) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", methods{"GET": s.metrics.ServeHTTP})
	mux.HandleFunc("/", s.notFound)
	return withHeaders(mux)
}

// tlsConfig is that of every TLS listener.
func (a *App) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{GetCertificate: a.certs.get, NextProtos: protocols, MinVersion: tls.VersionTLS12}
}
