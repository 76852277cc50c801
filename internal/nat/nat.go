// Package nat finds out how this host stands to the Internet: the public address of each family, what kind of translation
// lies between, whether the provider shares the address among customers (CGNAT), and what the router forwards.
//
// Discover looks once, as a diagnosis does. A Watcher looks again and again, has the router forward ports, and tells of
// changes. What is done with the outcome is the caller's affair: nothing here changes the relay or the certificate.
package nat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"callbox/internal/router"
)

// Mapping is how translation between this host and the Internet assigns ports (RFC 4787 section 4.1).
type Mapping string

// The kinds of translation.
const (
	// Unknown: fewer than two servers have answered, so that there is nothing to compare.
	Unknown Mapping = "unknown"
	// None: the public address is one of the host's own.
	None Mapping = "none"
	// Independent: servers at two addresses see the same port.
	Independent Mapping = "endpoint-independent"
	// Dependent: each server sees another port; such a NAT is called symmetric.
	Dependent Mapping = "address-dependent"
)

// ErrUnknown says that no server and no router has told a public address.
var ErrUnknown = errors.New("the public address is unknown")

// Config says whom to ask. The zero Config asks nobody.
type Config struct {
	// Servers are STUN servers as host:port. Two of different owners tell the mapping.
	Servers []string
	// Local are the addresses to ask from, at most one of each family; none for a family: the system chooses.
	Local []netip.Addr
	// Network is "udp4" or "udp6" where only one family matters; "" is both.
	Network string
	// Host lists this host's addresses; nil: those of the interfaces.
	Host func() []netip.Addr
	// Resolve looks up a server's name; nil: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Router finds the router, which is asked for its address outside; nil: it is not asked. FindRouter makes one.
	Router func(ctx context.Context) (Forwarder, error)
	// Timeout bounds the whole; 0: 4 seconds.
	Timeout time.Duration
}

// Forwarder is a router that can be asked, a *router.Router. It is used by one goroutine at a time.
type Forwarder interface {
	Kind() router.Kind
	Name() string
	Gateway() netip.Addr
	Local() netip.Addr
	External(ctx context.Context) (netip.Addr, error)
	Map(ctx context.Context, p router.Port, lease time.Duration, now time.Time) (router.Mapping, error)
	Unmap(ctx context.Context, p router.Port) error
	Lost(ctx context.Context, p router.Port) bool
}

// FindRouter is router.Find as Config.Router takes it.
func FindRouter(cfg router.Config) func(context.Context) (Forwarder, error) {
	return func(ctx context.Context) (Forwarder, error) {
		r, err := router.Find(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return r, nil
	}
}

// defaultTimeout is below the 5 seconds that a start may take at most.
const defaultTimeout = 4 * time.Second

// Answer is what one STUN server said.
type Answer struct {
	Server string         `json:"server"`           // as configured
	At     netip.AddrPort `json:"at,omitzero"`      // the address asked
	Mapped netip.AddrPort `json:"mapped,omitzero"`  // where it sees us
	Error  string         `json:"error,omitempty"`  // why there is none
	Took   time.Duration  `json:"tookNs,omitempty"` // round trip
}

// Family is the outcome for IPv4 or IPv6.
type Family struct {
	// Public is the address by which this host is seen from outside; zero: unknown.
	Public netip.Addr `json:"public,omitzero"`
	// Source is who told it: "stun", "router", or "host" where it is the host's own and nobody was needed.
	Source string `json:"source,omitempty"`
	// Mapping is the kind of translation.
	Mapping Mapping  `json:"mapping"`
	Answers []Answer `json:"answers,omitempty"`
	// Problem says why Public is unknown, or what contradicts it.
	Problem string `json:"problem,omitempty"`
}

// Router is what is known of the router.
type Router struct {
	Found bool        `json:"found"`
	Kind  router.Kind `json:"kind,omitempty"`
	Name  string      `json:"name,omitempty"` // as it calls itself
	// Gateway is its address on this side, Local this host's towards it, WAN its address on the other side.
	Gateway netip.Addr `json:"gateway,omitzero"`
	Local   netip.Addr `json:"local,omitzero"`
	WAN     netip.Addr `json:"wan,omitzero"`
	// NoWAN: it says that it has no public address there.
	NoWAN bool `json:"noWan,omitempty"`
	// Mappings are the ports it forwards to us now. Lease is how long each is asked for.
	Mappings []router.Mapping `json:"mappings,omitempty"`
	Lease    time.Duration    `json:"leaseNs,omitempty"`
	// Fault is "", FaultNone, FaultConflict, FaultRefused, FaultFull or FaultOther; Err says it, with the remedy.
	Fault Fault  `json:"fault,omitempty"`
	Err   string `json:"error,omitempty"`
}

// Fault is why the router does not do what it should.
type Fault string

// The faults.
const (
	FaultNone     Fault = "no-router" // nobody answers at the gateway
	FaultConflict Fault = "conflict"  // the port is forwarded to another host
	FaultRefused  Fault = "refused"
	FaultFull     Fault = "full"
	FaultOther    Fault = "error"
)

// Report is what is known at one time.
type Report struct {
	IPv4 Family `json:"ipv4"`
	IPv6 Family `json:"ipv6"`
	// CGNAT: the provider translates too, so that nobody outside can reach IPv4 ports of this host, whatever is forwarded. Why
	// says how it is known. A second router in the house looks the same, and is named in Why.
	CGNAT  bool   `json:"cgnat"`
	Why    string `json:"why,omitempty"`
	Router Router `json:"router"`
	// Checked is when the look ended; zero: there was none yet.
	Checked time.Time `json:"checked,omitzero"`
	// Err says why no public address is known at all.
	Err string `json:"error,omitempty"`
}

// Addrs are the public addresses that are not the host's own: those that clients have to be told, because the host cannot
// see them. Where the provider shares the IPv4 address there is none: nobody reaches it.
func (r Report) Addrs() []netip.Addr {
	var out []netip.Addr
	if r.IPv4.Public.IsValid() && r.IPv4.Mapping != None && !r.CGNAT {
		out = append(out, r.IPv4.Public)
	}
	if r.IPv6.Public.IsValid() && r.IPv6.Mapping != None {
		out = append(out, r.IPv6.Public)
	}
	return out
}

// Forwards says whether the router forwards a port to this host.
func (r Report) Forwards(p router.Port) bool {
	return slices.ContainsFunc(r.Router.Mappings, func(m router.Mapping) bool { return m.Port == p })
}

// Discover looks once, and asks everybody at the same time. The report holds what was found also where the error is
// ErrUnknown.
func Discover(ctx context.Context, cfg Config) (Report, error) {
	report, _ := discover(ctx, cfg, nil)
	if report.Err != "" {
		return report, ErrUnknown
	}
	return report, nil
}

// discover is Discover with a router that is known already, or nil; it returns the one to ask next time.
func discover(ctx context.Context, cfg Config, known Forwarder) (Report, Forwarder) {
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if cfg.Host == nil {
		cfg.Host = hostAddrs
	}
	if cfg.Resolve == nil {
		cfg.Resolve = resolve
	}
	host := cfg.Host()
	var report Report
	var wg sync.WaitGroup
	report.IPv4.Mapping, report.IPv6.Mapping = Unknown, Unknown
	if cfg.Network != "udp6" {
		wg.Go(func() { report.IPv4 = ask(ctx, cfg, host, false) })
	}
	if cfg.Network != "udp4" {
		wg.Go(func() { report.IPv6 = ask(ctx, cfg, host, true) })
	}
	if cfg.Router != nil {
		wg.Go(func() { report.Router, known = askRouter(ctx, cfg.Router, known) })
	}
	wg.Wait()
	conclude(&report, host)
	report.Checked = time.Now()
	return report, known
}

// askRouter finds the router, or looks for it anew where the known one does not answer.
func askRouter(ctx context.Context, find func(context.Context) (Forwarder, error), known Forwarder) (Router, Forwarder) {
	if known != nil {
		if wan, err := known.External(ctx); err == nil || errors.Is(err, router.ErrNoAddress) {
			return describe(known, wan, err), known
		}
	}
	found, err := find(ctx)
	if err != nil {
		return Router{Fault: FaultNone, Err: err.Error()}, nil
	}
	wan, err := found.External(ctx)
	return describe(found, wan, err), found
}

// describe is a router that was asked for its address.
func describe(r Forwarder, wan netip.Addr, err error) Router {
	out := Router{Found: true, Kind: r.Kind(), Name: r.Name(), Gateway: r.Gateway(), Local: r.Local(), WAN: wan}
	if err != nil {
		out.WAN, out.Fault, out.Err = netip.Addr{}, FaultOther, err.Error()
		out.NoWAN = errors.Is(err, router.ErrNoAddress)
	}
	return out
}

// resolve asks the system, with a bound of its own: a resolver that is cut off would use up all the time.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// hostAddrs are the addresses of this host's interfaces.
func hostAddrs() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out
}
