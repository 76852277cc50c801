package app

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"callbox/internal/config"
	"callbox/internal/router"
)

// linkBases are the URLs by which others reach the server, without a slash at their end: the one that was configured, its
// names, the public address where connections to it are known to come here, and the addresses of this host. Where only this
// machine reaches it, that URL.
func (a *App) linkBases() []string {
	l := a.live.Load()
	outside := l.cfg.PublicIP
	if r := a.network(); len(outside) == 0 && r != nil && !r.CGNAT && r.Forwards(router.Port{Protocol: "tcp", Number: a.addr.Port()}) {
		outside = l.public
	}
	return bases(l.cfg, a.addr, outside, l.addrs)
}

// LinkBases are those of a server that is not running, but would with that configuration.
func LinkBases(cfg config.Config) []string { return bases(cfg, cfg.Listen, cfg.PublicIP, hostAddrs()) }

func bases(cfg config.Config, listen netip.AddrPort, outside, addrs []netip.Addr) []string {
	if !listen.Addr().IsUnspecified() {
		outside = nil // that address leads to others of this host, if to any
	}
	// People type IPv6 addresses badly, and no more need more than one address.
	if outside = preferred(outside); len(outside) > 1 {
		outside = outside[:1]
	}
	for _, addr := range addrs {
		if !slices.Contains(outside, addr) {
			outside = append(slices.Clip(outside), addr)
		}
	}
	p := startPage{Listen: listen, Names: cfg.HostNames(), Addrs: pageAddrs(cfg, outside), URL: string(cfg.PublicURL)}
	if out := p.remote(); len(out) > 0 {
		return out
	}
	return []string{p.local()}
}

// setupForPhone is a set-up link by the first URL that leads here from another device, or "".
func (a *App) setupForPhone(token string) string {
	base := a.linkBases()[0]
	if token == "" || !strings.HasPrefix(base, "https://") {
		return ""
	}
	return base + setupPath(token)
}

// baseOf is the URL of this server for a link that somebody asked for over HTTP: the configured one, else the one that the
// request came by, else, where that leads to the asker's own machine, the first by which others reach it.
func (s *web) baseOf(r *http.Request) string {
	if public := s.publicURL(); public != "" {
		return public
	}
	c := clientOf(r)
	host := c.Hostname()
	addr, err := netip.ParseAddr(host)
	if !validHost(c.Host) || strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback() {
		return s.bases()[0]
	}
	return requestBase(c)
}
