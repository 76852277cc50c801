package app

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"callbox/internal/config"
	"callbox/internal/doctor"
	"callbox/internal/nat"
)

const (
	// firstLook is how long an examination waits for the first report on the network.
	firstLook = 15 * time.Second
	// lookPoll is how often it asks meanwhile.
	lookPoll = 50 * time.Millisecond
)

// examinedNetwork tells the doctor how this host stands to the Internet: what the watcher knows, and what it does not ask
// about because it was told.
func (a *App) examinedNetwork(ctx context.Context) doctor.Network {
	l := a.live.Load()
	if a.addr.Addr().IsLoopback() {
		return doctor.Network{Loopback: true, Local: l.addrs}
	}
	if a.watcher == nil {
		report, _ := nat.Discover(ctx, probeOf(l.cfg, true)) // its error is in the report too
		return networkFacts(report, l.cfg, l.addrs, a.web.users.HasAdmin())
	}
	report := a.awaitNetwork(ctx)
	if len(l.cfg.PublicIP) > 0 {
		ask := probeOf(l.cfg, true)
		ask.Router = nil // the watcher has it
		seen, _ := nat.Discover(ctx, ask)
		report.IPv4, report.IPv6, report.Err = seen.IPv4, seen.IPv6, seen.Err
	}
	return networkFacts(report, l.cfg, l.addrs, a.web.users.HasAdmin())
}

// awaitNetwork is the watcher's report, the first where there is none yet.
func (a *App) awaitNetwork(ctx context.Context) nat.Report {
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	tick := time.NewTicker(lookPoll)
	defer tick.Stop()
	for a.watcher.State().Checked.IsZero() {
		select {
		case <-ctx.Done():
			return a.watcher.State()
		case <-tick.C:
		}
	}
	return a.watcher.State()
}

// networkFacts says a report in the doctor's words.
func networkFacts(r nat.Report, cfg config.Config, local []netip.Addr, admin bool) doctor.Network {
	n := doctor.Network{
		Given: cfg.PublicIP, Local: local, Offline: len(cfg.STUN()) == 0,
		WAN: r.Router.WAN, CGNAT: r.CGNAT, CGNATWhy: r.Why,
	}
	var how []string
	for _, f := range []nat.Family{r.IPv4, r.IPv6} {
		if f.Public.IsValid() {
			n.Found = append(n.Found, f.Public)
			how = append(how, map[string]string{"stun": "STUN", "router": "the router", "host": "this machine"}[f.Source])
		}
		if n.Problem == "" {
			n.Problem = f.Problem
		}
	}
	n.How = strings.Join(how, " and ")
	if len(how) == 2 && how[0] == how[1] {
		n.How = how[0]
	}
	if n.Problem == "" {
		n.Problem = r.Err
	}
	family := r.IPv4
	if !family.Public.IsValid() && r.IPv6.Public.IsValid() {
		family = r.IPv6
	}
	switch {
	case family.Mapping != nat.Unknown:
		n.Kind = doctor.Mapping(family.Mapping)
	case silent(family.Answers):
		n.Kind = doctor.Blocked
	}
	n.Router, n.RouterD = routerFacts(r, cfg, admin)
	return n
}

// silent says that servers were asked, and none has answered.
func silent(answers []nat.Answer) bool {
	asked := false
	for _, a := range answers {
		if a.Mapped.IsValid() {
			return false
		}
		asked = asked || a.At.IsValid()
	}
	return asked
}

func routerFacts(r nat.Report, cfg config.Config, admin bool) (doctor.RouterState, string) {
	name := r.Router.Name
	if name == "" {
		name = "the router"
	}
	switch {
	case cfg.MapPort == config.MapOff:
		return doctor.RouterOff, "--map-port off"
	case cfg.Clustered():
		return doctor.RouterOff, "the nodes of a cluster leave routers alone"
	case r.Checked.IsZero():
		return doctor.RouterWaiting, "the router is still being looked for"
	case r.Router.Fault == nat.FaultNone:
		return doctor.RouterNone, r.Router.Err
	case r.Router.Fault != "":
		return doctor.RouterRefused, r.Router.Err
	case len(r.Router.Mappings) > 0:
		return doctor.RouterMapped, name + " (" + string(r.Router.Kind) + ") forwards " + r.Router.Ports()
	case r.Router.Found && !admin:
		return doctor.RouterWaiting, name + " is asked once there is an administrator (callbox user add NAME --admin)"
	}
	return doctor.RouterWaiting, name + " forwards nothing yet"
}
