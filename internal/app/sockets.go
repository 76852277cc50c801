package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"callbox/internal/certs"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/doctor"
	"callbox/relay"
)

// portTries is how often a port number that the system chooses for TCP is tried for UDP too.
const portTries = 32

// ownLookup bounds the look at the DNS for the bus's addresses.
const ownLookup = 2 * time.Second

// openSockets binds everything: TCP first, then the relay's UDP on the same number.
func (a *App) openSockets(undo *closers) error {
	var listener net.Listener
	var err error
	// Before the relay, which is told what it may never reach.
	if a.metrics, err = openMetrics(a.cfg, a.log); err != nil {
		return err
	}
	if a.metrics != nil {
		undo.add(a.metrics.Close)
	}
	if !a.opts.Handed.empty() {
		a.cfg.Listen = a.opts.Handed.addr()
	}
	for try := range portTries {
		if listener, err = a.listenOne(); err != nil {
			return err
		}
		a.addr = boundAddr(listener, a.cfg.Listen)
		if a.relay, err = a.openRelay(); err == nil {
			break
		}
		_ = listener.Close()
		if a.cfg.Listen.Port() != 0 || !inUse(err) || try == portTries-1 {
			return a.busyRelay(err)
		}
	}
	undo.add(listener.Close)
	undo.add(a.relay.Close)
	a.port = a.newPort(listener, true, false)

	for _, l := range a.cfg.TURNListen {
		port := int(l.Addr.Port())
		if l.Network != "udp" {
			extra, err := listenTCP(l.Addr, "turn-listen")
			if err != nil {
				return err
			}
			undo.add(extra.Close)
			port = int(boundAddr(extra, l.Addr).Port())
			a.extra = append(a.extra, a.newPort(extra, false, l.Network == "tls"))
		}
		a.turns = append(a.turns, turnPort{Network: l.Network, Port: port})
	}
	a.openRedirect(undo)
	if a.control, err = listenControl(filepath.Join(a.dir.Path(), control.SocketName)); err != nil {
		return err
	}
	undo.add(a.control.Close)
	return nil
}

// listenOne is the TCP side of the one port.
func (a *App) listenOne() (net.Listener, error) {
	if a.opts.Handed.TCP != nil {
		return a.opts.Handed.TCP, nil
	}
	return listenTCP(a.cfg.Listen, "listen")
}

func (a *App) newPort(l net.Listener, http, startTLS bool) *port {
	cfg := portConfig{
		Listener:   l,
		Stream:     a.relay.ServeStream,
		HTTP:       http,
		StartTLS:   startTLS,
		Trusted:    contains(a.cfg.TrustedProxy),
		PerAddress: a.cfg.ConnectionsPerAddress,
		Accepted:   a.opts.Accepted,
		Log:        a.log,
	}
	if http {
		// The last two are TURN's own (RFC 7443): who offers nothing else must find them.
		protocols := []string{"h2", "http/1.1", "stun.turn", "stun.nat-discovery"}
		if len(a.cfg.Domains) > 0 {
			protocols = append(protocols, certs.ChallengeProtocol)
		}
		cfg.TLS = a.tlsConfig(protocols...)
	} else if startTLS {
		cfg.TLS = a.tlsConfig()
	}
	return newPort(cfg)
}

func (a *App) openRelay() (*relay.Server, error) {
	udp := []netip.AddrPort{a.addr}
	for _, l := range a.cfg.TURNListen {
		if l.Network == "udp" {
			udp = append(udp, l.Addr)
		}
	}
	var handed []*net.UDPConn
	if a.opts.Handed.UDP != nil {
		udp, handed = udp[1:], append(handed, a.opts.Handed.UDP)
	}
	return relay.Listen(relay.Config{
		UDP:       udp,
		Handed:    handed,
		Public:    a.cfg.PublicIP,
		Ports:     relay.PortRange{Low: a.cfg.RelayPorts.Low, High: a.cfg.RelayPorts.High},
		Realm:     a.cfg.Realm,
		Keys:      a.turnKeys,
		AllowPeer: a.allowPeer,
		Own:       a.ownAddrs(),
		Quota: relay.Quota{
			Allocations:           a.cfg.UserQuota,
			Total:                 a.cfg.TotalQuota,
			UserBitrate:           int64(a.cfg.UserBandwidth),
			TotalBitrate:          int64(a.cfg.RelayBandwidth),
			UnauthRate:            a.cfg.UnauthRate,
			ConnectionsPerAddress: a.cfg.ConnectionsPerAddress,
		},
		Portable: a.cfg.RelayPlane == config.PortablePlane,
		Log:      a.log,
	})
}

// ownAddrs are the listeners of this process and its Redis, which no relay may reach whatever --allow-peer says.
func (a *App) ownAddrs() []netip.AddrPort {
	own := []netip.AddrPort{a.addr}
	if a.cfg.HTTPListen.IsValid() {
		own = append(own, a.cfg.HTTPListen)
	}
	for _, l := range a.cfg.TURNListen {
		own = append(own, l.Addr)
	}
	if a.metrics != nil {
		own = append(own, boundAddr(a.metrics, a.cfg.MetricsListen.Addr))
	}
	if a.cfg.Clustered() {
		// The start does not wait for a resolver that is cut off. Names of hosts that are up have been found a moment ago.
		ctx, cancel := context.WithTimeout(context.Background(), ownLookup)
		defer cancel()
		own = append(own, busAddrs(string(a.cfg.Bus), func(host string) ([]string, error) { return net.DefaultResolver.LookupHost(ctx, host) })...)
	}
	return own
}

// busAddrs are the addresses that the hosts of a bus URL have now.
func busAddrs(bus string, lookup func(string) ([]string, error)) []netip.AddrPort {
	u, err := url.Parse(bus)
	if err != nil {
		return nil
	}
	var out []netip.AddrPort
	for hostport := range strings.SplitSeq(u.Host, ",") {
		part := url.URL{Host: hostport}
		port := part.Port()
		if port == "" {
			port = "6379"
		}
		hosts, err := lookup(part.Hostname())
		if err != nil {
			continue // a Redis that cannot be found cannot be reached by a relay either
		}
		for _, host := range hosts {
			if ap, err := netip.ParseAddrPort(net.JoinHostPort(host, port)); err == nil {
				out = append(out, ap)
			}
		}
	}
	return out
}

func listenTCP(addr netip.AddrPort, key string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		return nil, busyPort(err, "tcp", addr, key)
	}
	return l, nil
}

// busyRelay is busyPort for the relay's UDP, which is on the one port and on those of --turn-listen: the error knows on which.
func (a *App) busyRelay(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		at := socketAddr(op.Addr)
		for _, l := range a.cfg.TURNListen {
			if l.Network == "udp" && l.Addr.Port() != 0 && l.Addr.Port() == at.Port() {
				return busyPort(err, "udp", l.Addr, "turn-listen")
			}
		}
	}
	return busyPort(err, "udp", a.cfg.Listen, "listen")
}

// busyPort adds the remedy to the commonest failures of a start.
func busyPort(err error, network string, addr netip.AddrPort, key string) error {
	switch {
	case inUse(err):
		holder := doctor.Holder(network, addr.Port())
		if holder == "" {
			holder = "another program, perhaps another callbox"
		}
		return fmt.Errorf("port %d is in use by %s; stop that, or choose another with --%s: %w", addr.Port(), holder, key, err)
	case notAllowed(err):
		binary, pathErr := os.Executable()
		if pathErr != nil {
			binary = "callbox"
		}
		return fmt.Errorf("port %d is not for this user; run: sudo setcap cap_net_bind_service=+ep %s (again after each update); under systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; or choose a port above 1023 with --%s: %w", addr.Port(), binary, key, err)
	case notOurs(err):
		return fmt.Errorf("--%s: %s is no address of this machine; give one that is, or none for all, as :%d: %w", key, addr.Addr(), addr.Port(), err)
	}
	return fmt.Errorf("--%s: %w", key, err)
}

// boundAddr is the configured address with the port that it got; the address it got where none was configured.
func boundAddr(l net.Listener, wanted netip.AddrPort) netip.AddrPort {
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		if !wanted.IsValid() {
			return netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
		}
		return netip.AddrPortFrom(wanted.Addr(), tcp.AddrPort().Port())
	}
	return wanted
}

func texts(rules []config.PeerRule) []string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = string(r)
	}
	return out
}
