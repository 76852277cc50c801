package app

import (
	"net/http"
	"net/netip"
	"strings"

	"callbox/internal/config"
)

// linkBases are the URLs by which others reach the server, without a slash at their end: the one that was configured, else
// the names and addresses of this host. Where only this machine reaches it, that URL.
func (a *App) linkBases() []string {
	l := a.live.Load()
	return bases(l.cfg, a.addr, l.addrs)
}

// LinkBases are those of a server that is not running, but would with that configuration.
func LinkBases(cfg config.Config) []string { return bases(cfg, cfg.Listen, hostAddrs()) }

func bases(cfg config.Config, listen netip.AddrPort, addrs []netip.Addr) []string {
	p := startPage{Listen: listen, Names: cfg.HostNames(), Addrs: pageAddrs(cfg, addrs), URL: string(cfg.PublicURL)}
	if out := p.remote(); len(out) > 0 {
		return out
	}
	return []string{p.local()}
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
