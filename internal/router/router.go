// Package router finds the router that stands between this host and the Internet, asks it for its address there, and has it
// forward ports. It speaks UPnP IGD (versions 1 and 2) and NAT-PMP (RFC 6886), to the default gateway alone: whatever
// another host of the network says is not listened to, and whatever the gateway says is bounded in size and time.
//
// It decides nothing: which ports, when, and for how long is its caller's affair. It is for IPv4, where routers translate.
package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Kind is the protocol that a router answers.
type Kind string

// The kinds.
const (
	IGD1   Kind = "upnp igd1"
	IGD2   Kind = "upnp igd2"
	NATPMP Kind = "nat-pmp"
)

// Errors of this package.
var (
	// ErrNone: no router answers, or none of a kind that can be asked.
	ErrNone = errors.New("no router that can be asked")
	// ErrConflict: the port is forwarded to another host, or is the router's own.
	ErrConflict = errors.New("the port is taken at the router")
	// ErrNoAddress: the router answers, and has no address of IPv4 outside. That is how routers behind a provider's NAT say it.
	ErrNoAddress = errors.New("the router has no public IPv4 address")
	// ErrRefused: the router forwards nothing for this host.
	ErrRefused = errors.New("the router refuses to forward ports")
	// ErrFull: the router has no room for a further port.
	ErrFull = errors.New("the router forwards no further port")
)

// Port is a port of this host, and the same number outside.
type Port struct {
	Protocol string `json:"protocol"` // "udp" or "tcp"
	Number   uint16 `json:"port"`
}

// String writes "8080/tcp".
func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) }

// Mapping is a port that the router forwards to this host.
type Mapping struct {
	Port
	// Until is when the router forgets it; zero: never, because this router knows permanent mappings only.
	Until time.Time `json:"until,omitzero"`
}

// Config says whom to ask. The zero Config asks the default gateway.
type Config struct {
	Gateway netip.Addr // zero: the default gateway
	Local   netip.Addr // of this host towards it; zero: what the routing table says

	search netip.AddrPort // for tests: where searches are sent besides the gateway; zero: the multicast group
	ssdp   uint16         // for tests: the port of the gateway's search service; 0: 1900
	wait   time.Duration  // for tests: how long answers are waited for; 0: searchFor
}

// protocol is what each kind of router can do. Calls end with the context, or sooner.
type protocol interface {
	kind() Kind
	name() string
	// external is the router's address on its other side.
	external(ctx context.Context) (netip.Addr, error)
	// add forwards a port, or makes a mapping of ours last for longer.
	add(ctx context.Context, p Port, lease time.Duration, now time.Time) (Mapping, error)
	// remove ends a mapping, if it is ours.
	remove(ctx context.Context, p Port) error
	// lost says whether the router is known to have forgotten a mapping before its time.
	lost(ctx context.Context, p Port) bool
}

// Router is one that answered.
type Router struct {
	protocol
	gateway, local netip.Addr
}

// Kind is the protocol it answers.
func (r *Router) Kind() Kind { return r.kind() }

// Name is what it calls itself, at most 80 printable characters; "" where its protocol knows no names.
func (r *Router) Name() string { return r.name() }

// Gateway is its address on this side, and Local this host's own towards it.
func (r *Router) Gateway() netip.Addr { return r.gateway }

// Local is this host's address towards the router: ports are forwarded to it.
func (r *Router) Local() netip.Addr { return r.local }

// External asks the router for its address on the other side. ErrNoAddress: it has none.
func (r *Router) External(ctx context.Context) (netip.Addr, error) {
	addr, err := r.external(ctx)
	if err == nil && (!addr.IsValid() || addr.IsUnspecified()) {
		err = ErrNoAddress
	}
	return addr, err
}

// Map has a port forwarded to this host for the lease, or renews it. A port of another host's is never taken over: ErrConflict.
func (r *Router) Map(ctx context.Context, p Port, lease time.Duration, now time.Time) (Mapping, error) {
	m, err := r.add(ctx, p, lease, now)
	if err != nil {
		return Mapping{}, fmt.Errorf("port %s: %w", p, err)
	}
	return m, nil
}

// Unmap ends the forwarding of a port, unless it is another host's by now.
func (r *Router) Unmap(ctx context.Context, p Port) error {
	if err := r.remove(ctx, p); err != nil {
		return fmt.Errorf("port %s: %w", p, err)
	}
	return nil
}

// Lost says whether the router is known to have forgotten a mapping before its time, as after a restart.
func (r *Router) Lost(ctx context.Context, p Port) bool { return r.lost(ctx, p) }

// Find looks for the router. It takes at most three seconds, less where the context says so. The error is ErrNone where
// nobody answers.
func Find(ctx context.Context, cfg Config) (*Router, error) {
	gateway, local, err := cfg.route()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	// UPnP is preferred, because it can say who holds a port.
	type found struct {
		p   protocol
		err error
	}
	upnp, pmp := make(chan found, 1), make(chan found, 1)
	go func() { p, err := findIGD(ctx, cfg, gateway, local); upnp <- found{p, err} }()
	go func() { p, err := findPMP(ctx, gateway, local); pmp <- found{p, err} }()
	first, second := <-upnp, <-pmp
	switch {
	case first.err == nil:
		return &Router{first.p, gateway, local}, nil
	case second.err == nil:
		return &Router{second.p, gateway, local}, nil
	}
	return nil, fmt.Errorf("%w: %s answers neither UPnP (%w) nor NAT-PMP (%w)", ErrNone, gateway, first.err, second.err)
}

// findTimeout bounds Find.
const findTimeout = 3 * time.Second

// route completes the addresses.
func (c Config) route() (gateway, local netip.Addr, err error) {
	gateway, local = c.Gateway.Unmap(), c.Local.Unmap()
	if !gateway.IsValid() {
		if gateway, err = Gateway(); err != nil {
			return gateway, local, err
		}
	}
	if !local.IsValid() || local.IsUnspecified() {
		if local, err = localTowards(gateway); err != nil {
			return gateway, local, fmt.Errorf("%w: no way to the gateway: %w", ErrNone, err)
		}
	}
	return gateway, local, nil
}
