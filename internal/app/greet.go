package app

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"callbox/internal/config"
	"callbox/internal/qr"
)

// greet says where the server is reached: to a person as the start page, to a log as one line.
func (a *App) greet() {
	if a.cfg.CompatOpen {
		a.log.Warn("--compat-open: anybody from any origin is admitted to the protocols of other servers; use it for development only", "compat", a.web.compat.String())
	}
	p := a.startPage()
	if a.opts.Stdout != nil {
		if err := p.write(a.opts.Stdout); err != nil {
			a.log.Warn("start page not written", logError, err)
		}
		a.showQR(p)
		return
	}
	a.log.Info("callbox is running", "version", p.Version, "listen", a.addr.String(), "local", p.local(),
		"remote", strings.Join(p.remote(), " "), "relay-ports", p.RelayPorts, "turns", p.TURNS, "bus", p.Bus,
		"node", p.Node, "users", p.Users, "data", p.Data, "authority", p.Fingerprint)
	if p.Setup != "" {
		a.logSetup(p)
	}
}

func (a *App) logSetup(p startPage) {
	here, elsewhere := p.setupURLs()
	links := []any{"setup", here, "setup-remote", elsewhere}
	switch {
	case here == "":
		links = []any{"setup", elsewhere}
	case elsewhere == "":
		links = links[:2]
	}
	a.log.Info("there is no user yet: make the first one, an administrator, within 30 minutes", links...)
}

// greetAgain says a further set-up link.
func (a *App) greetAgain(token string) {
	p := a.startPage()
	p.Setup = token
	if a.opts.Stdout == nil {
		a.logSetup(p)
		return
	}
	if err := p.writeSetup(a.opts.Stdout); err != nil {
		a.log.Warn("set-up link not written", logError, err)
	}
	a.showQR(p)
}

// showQR shows the set-up link to a phone, where there is one that leads here and the terminal has room for it.
func (a *App) showQR(p startPage) {
	link := a.setupForPhone(p.Setup)
	if link == "" || a.opts.TerminalSize == nil || a.cfg.QR == config.Off {
		return
	}
	if columns, lines := a.opts.TerminalSize(); !qr.Fits(link, columns, lines) {
		return
	}
	_, err := fmt.Fprintf(a.opts.Stdout, "By phone: %s\n\n", link)
	if err == nil {
		err = qr.Print(a.opts.Stdout, link)
	}
	if err != nil {
		a.log.Warn("QR code not written", logError, err)
	}
}

func (a *App) startPage() startPage {
	l := a.live.Load()
	p := startPage{
		Version:     a.opts.Version,
		Listen:      a.addr,
		Addrs:       pageAddrs(a.cfg, l.addrs),
		Names:       a.cfg.HostNames(),
		URL:         string(l.cfg.PublicURL),
		Setup:       a.setup,
		Users:       a.web.users.Count(),
		Certificate: certificateLines(a.CertificateState(), time.Now()), Fingerprint: a.certs.fingerprint(),
		TURNS:  a.turnsLine(),
		Public: l.public, Outside: a.networkLines(),
		Bus:   string(config.Memory),
		Node:  a.bus.Self().Name(),
		Nodes: len(a.bus.Nodes()),
		Data:  a.dir.Path(),
	}
	if !a.cfg.RelayPorts.None() {
		p.RelayPorts = strconv.Itoa(int(a.cfg.RelayPorts.Low)) + "-" + strconv.Itoa(int(a.cfg.RelayPorts.High))
	}
	if a.cfg.Clustered() {
		p.Bus = a.cfg.Bus.Masked()
	}
	if a.metrics != nil {
		p.Metrics = a.metrics.Addr().String()
	}
	for _, l := range a.cfg.TURNListen {
		text, err := l.MarshalText()
		if err == nil {
			p.TURNListen = append(p.TURNListen, string(text))
		}
	}
	return p
}

// pageAddrs are the addresses to name beside the names: none where the certificate is good for the names alone.
func pageAddrs(cfg config.Config, addrs []netip.Addr) []netip.Addr {
	if len(cfg.Domains) > 0 {
		return nil
	}
	return addrs
}

// turnsOffLocal is said where only the local certificate could answer.
const turnsOffLocal = "off: needs a publicly trusted certificate (--domain)"

// turnsLine says whether clients are offered TURN over TLS. The listener answers it in any case.
func (a *App) turnsLine() string {
	switch a.live.Load().cfg.TURNS {
	case config.On:
		return "on"
	case config.Off:
		return "off (--turns)"
	}
	if a.certs.files == nil && a.certs.acme == nil {
		return turnsOffLocal
	}
	return "on for the names of the certificate, where it is publicly trusted"
}
