package app

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"callbox/internal/config"
	"callbox/internal/metrics"
	"callbox/internal/nat"
	"callbox/internal/router"
	"callbox/relay"
)

// mappedRelayPorts is how many relay ports the router is asked to forward. Home routers have room for a few dozen in all, and
// two clients of this server meet on any port: only who has no relay of ours needs a forwarded one.
const mappedRelayPorts = 16

// newWatcher makes what finds out how this host stands to the Internet, or returns nil where that is nobody's question: on
// loopback nobody comes from outside, and the nodes of a cluster are told their addresses by whoever set it up.
func newWatcher(a *App) *nat.Watcher {
	if a.cfg.Listen.Addr().IsLoopback() || a.cfg.Clustered() {
		return nil
	}
	return nat.NewWatcher(nat.WatcherConfig{Probe: a.probe, Wish: a.wish, Changed: a.networkChanged, Log: a.log})
}

// probe says whom to ask about the public address. --public-ip is an answer already.
func (a *App) probe() nat.Config {
	cfg := a.live.Load().cfg
	return probeOf(cfg, len(cfg.PublicIP) == 0)
}

// probeOf is whom a configuration names; servers says whether STUN servers are among them.
func probeOf(cfg config.Config, servers bool) nat.Config {
	var out nat.Config
	addr := cfg.Listen.Addr()
	if servers {
		out.Servers = cfg.STUN()
	}
	if !addr.IsUnspecified() {
		out.Local = []netip.Addr{addr}
	}
	switch {
	case addr.Is4():
		out.Network = "udp4"
	case !addr.IsUnspecified():
		out.Network = "udp6"
	}
	if cfg.MapPort == config.MapAuto && out.Network != "udp6" {
		ask := router.Config{}
		if addr.Is4() && !addr.IsUnspecified() {
			ask.Local = addr
		}
		out.Router = nat.FindRouter(ask)
	}
	return out
}

// wish is what the router is to forward now: nothing before there is an administrator, because until then whoever comes
// first may become one.
func (a *App) wish() nat.Wish {
	cfg := a.live.Load().cfg
	if cfg.MapPort != config.MapAuto || !a.web.users.HasAdmin() {
		return nat.Wish{}
	}
	port := a.addr.Port()
	out := nat.Wish{Need: []router.Port{{Protocol: "tcp", Number: port}, {Protocol: "udp", Number: port}}}
	for _, t := range a.turns {
		protocol := "tcp"
		if t.Network == "udp" {
			protocol = "udp"
		}
		p := router.Port{Protocol: protocol, Number: uint16(t.Port)}
		if t.Port != 0 && !slices.Contains(out.Need, p) {
			out.Need = append(out.Need, p)
		}
	}
	if a.redirect != nil {
		if at, ok := a.redirect.cfg.Listener.Addr().(*net.TCPAddr); ok {
			out.Need = append(out.Need, router.Port{Protocol: "tcp", Number: uint16(at.Port)})
		}
	}
	if !cfg.RelayPorts.None() {
		for n := int(cfg.RelayPorts.Low); n <= int(cfg.RelayPorts.High) && len(out.Extra) < mappedRelayPorts; n++ {
			if p := (router.Port{Protocol: "udp", Number: uint16(n)}); !slices.Contains(out.Need, p) {
				out.Extra = append(out.Extra, p)
			}
		}
	}
	return out
}

// network is the last report, or nil where nobody looks.
func (a *App) network() *nat.Report {
	if a.watcher == nil {
		return nil
	}
	r := a.watcher.State()
	return &r
}

// publicAddrs are those that clients are told: --public-ip, else what was found out.
func (a *App) publicAddrs(cfg config.Config) []netip.Addr {
	if len(cfg.PublicIP) > 0 || a.watcher == nil {
		return cfg.PublicIP
	}
	return a.watcher.State().Addrs()
}

// networkChanged takes over what the watcher has found out.
func (a *App) networkChanged(r nat.Report) {
	a.relay.SetForwarded(forwardedRange(r, a.cfg.RelayPorts))
	was := a.opened
	if a.opened = r.Forwards(router.Port{Protocol: "tcp", Number: a.addr.Port()}); a.opened && !was && a.certs.acme != nil {
		a.certs.acme.Nudge() // the authority has not got in so far
	}
	a.reloading.Lock()
	old := a.live.Load()
	l, err := a.newLive(old.cfg, old.turn.Secrets, old.addrs)
	if err == nil {
		a.take(l)
	}
	a.reloading.Unlock()
	if err != nil {
		a.log.Error("the public address is not taken over", logError, err)
		return
	}
	a.greetNetwork(r)
}

// forwardedRange are the first ports in a row that the router forwards for the relay.
func forwardedRange(r nat.Report, ports config.PortRange) relay.PortRange {
	var out relay.PortRange
	for n := int(ports.Low); n <= int(ports.High) && n < int(ports.Low)+2*mappedRelayPorts && !ports.None(); n++ {
		switch forwarded := r.Forwards(router.Port{Protocol: "udp", Number: uint16(n)}); {
		case forwarded && out.Low == 0:
			out.Low, out.High = uint16(n), uint16(n)
		case forwarded:
			out.High = uint16(n)
		case out.Low != 0:
			return out
		}
	}
	return out
}

// outside says whether a client comes from beyond this host's own network, as far as its address tells. Who is on the same
// network and came by the public name or address is turned back by the router, with an address of this side.
func outside(from netip.Addr, public []netip.Addr) bool {
	from = from.Unmap()
	return from.IsValid() && from.IsGlobalUnicast() && !from.IsPrivate() && !slices.Contains(public, from)
}

// networkLines say on the start page how people outside come in; nil where there is nothing to say.
func (a *App) networkLines() []string {
	r := a.network()
	if r == nil {
		return nil
	}
	cfg := a.live.Load().cfg
	if len(cfg.STUN()) == 0 && cfg.MapPort == config.MapOff {
		return nil
	}
	port := strconv.Itoa(int(a.addr.Port()))
	var lines []string
	if r.Checked.IsZero() {
		lines = append(lines, "being found out; it is said below")
	}
	if cfg.MapPort == config.MapAuto {
		when := "the router is asked to forward port " + port + " (TCP, UDP)"
		if !a.web.users.HasAdmin() {
			when += " once there is an administrator"
		}
		lines = append(lines, when+"; --map-port off leaves it alone")
	}
	return lines
}

// describeNetwork says what was found out, and what stands in the way. names are those that people use, where there are any.
func describeNetwork(r nat.Report, names []string, public []netip.Addr, port uint16) []string {
	var lines []string
	if len(names) == 0 {
		for _, addr := range public {
			names = append(names, addr.String())
		}
	}
	if len(public) > 0 {
		for _, name := range names {
			lines = append(lines, webURL("https", name, port))
		}
	}
	switch {
	case r.CGNAT:
		lines = append(lines, "nobody can come in by IPv4: "+r.Why+". Ask the provider for a public address, or use a server that has one.")
	case r.IPv4.Mapping == nat.None:
		lines = append(lines, "this host has the public address itself")
	case r.Router.Fault != "" && r.Router.Fault != nat.FaultNone:
		lines = append(lines, "the router does not forward every port: "+r.Router.Err)
	case len(r.Router.Mappings) > 0:
		name := r.Router.Name
		if name == "" {
			name = "the router"
		}
		lines = append(lines, name+" ("+string(r.Router.Kind)+") forwards "+r.Router.Ports())
	case r.Err != "":
		lines = append(lines, "the public address is not known: "+r.Err)
	case len(public) > 0:
		lines = append(lines, "where the router forwards port "+strconv.Itoa(int(port))+" (TCP, UDP) to this host")
	}
	return lines
}

// greetNetwork says on the terminal what was found out; a log has it from the watcher.
func (a *App) greetNetwork(r nat.Report) {
	if a.opts.Stdout == nil {
		return
	}
	var t rows
	t.add("From outside", describeNetwork(r, a.cfg.HostNames(), a.live.Load().public, a.addr.Port())...)
	if len(t) == 0 {
		return
	}
	if _, err := a.opts.Stdout.Write([]byte(strings.TrimRight(t.String(), "\n") + "\n\n")); err != nil {
		a.log.Warn("start page not written", logError, err)
	}
}

// networkStats are the report's, without addresses.
func (a *App) networkStats() metrics.NetworkStats {
	r := a.network()
	if r == nil {
		return metrics.NetworkStats{}
	}
	return metrics.NetworkStats{
		Watched: true,
		Known:   map[string]bool{"ipv4": r.IPv4.Public.IsValid(), "ipv6": r.IPv6.Public.IsValid()},
		Mapping: map[string]string{"ipv4": string(r.IPv4.Mapping), "ipv6": string(r.IPv6.Mapping)},
		CGNAT:   r.CGNAT, Router: string(r.Router.Kind), Fault: string(r.Router.Fault),
		Ports: len(r.Router.Mappings), Checked: r.Checked,
	}
}
