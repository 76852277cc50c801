package app

import (
	"time"

	"callbox/auth"
	"callbox/bus"
	"callbox/internal/config"
	"callbox/signal"
)

// ice computes the servers and the credential for a caller, who used one of this host's names.
func (a *App) ice(c caller, from client, relayNode bus.NodeID) signal.ICE {
	now, l := time.Now(), a.live.Load()
	ttl := l.cfg.TURNTTL
	// A credential does not outlive what it was given for, so that revocations need not be remembered for longer.
	if left := c.Expires.Sub(now); !c.Expires.IsZero() && left < ttl {
		ttl = max(left, time.Second)
	}
	offer := a.offer(from.Hostname())
	if len(l.cfg.PublicIP) == 0 && outside(from.Addr, l.public) {
		offer.Also = l.public
	}
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
