package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// Network is what is known of the way to this server from outside.
type Network struct {
	Loopback bool         // the server listens on loopback alone: nobody else reaches it
	Offline  bool         // --stun-server none
	Given    []netip.Addr // --public-ip
	Found    []netip.Addr // by STUN or the router
	How      string       // by whom Found was found, as "STUN" or "the router"
	Problem  string       // why nothing was found; "" not yet asked, or no problem
	Local    []netip.Addr // of this machine

	// Kind is the kind of mapping; "" unknown.
	Kind Mapping
	// WAN is the router's own address, as it says; zero: unknown. CGNAT: the provider translates too; CGNATWhy says how that
	// is known.
	WAN      netip.Addr
	CGNAT    bool
	CGNATWhy string

	Router  RouterState
	RouterD string // what the router's mapping is, or why there is none
}

// Mapping is what a NAT makes of one inner address (RFC 4787 section 4.1).
type Mapping string

// The mappings. NoNAT: the address is this machine's own.
const (
	NoNAT       Mapping = "none"
	Independent Mapping = "endpoint-independent"
	Dependent   Mapping = "address-dependent"
	Blocked     Mapping = "blocked" // UDP does not come back
)

// RouterState is what became of asking the router for a mapping.
type RouterState string

// The states of a router mapping.
const (
	RouterOff     RouterState = "off"     // --map-port off, or not wanted here
	RouterWaiting RouterState = "waiting" // not asked yet
	RouterNone    RouterState = "none"    // no router that speaks UPnP or NAT-PMP
	RouterRefused RouterState = "refused"
	RouterMapped  RouterState = "mapped"
)

// public are the addresses that are reached from outside.
func (n Network) public() []netip.Addr {
	if len(n.Given) > 0 {
		return n.Given
	}
	return n.Found
}

// behind says whether the first public address is not this machine's own.
func (n Network) behind() bool {
	p := n.public()
	return len(p) > 0 && !slices.Contains(n.Local, p[0])
}

const onlyLoopback = "the server listens on loopback alone (--listen)"

// publicAddress judges whether the address to give to others is known.
func publicAddress(n Network) Check {
	switch {
	case n.Loopback:
		return skipped(NamePublic, onlyLoopback)
	case len(n.Given) > 0 && len(n.Found) > 0 && differ(n.Given, n.Found):
		return warning(NamePublic, fmt.Sprintf("--public-ip says %s, but %s says %s", list(n.Given), n.How, list(n.Found)),
			"leave --public-ip out, so that the address is found and followed when it changes, or correct it")
	case len(n.Given) > 0:
		return good(NamePublic, list(n.Given)+" (--public-ip)")
	case len(n.Found) > 0:
		return good(NamePublic, list(n.Found)+", says "+n.How)
	case n.Offline:
		return skipped(NamePublic, "not looked for (--stun-server none); on this network: "+list(n.Local))
	case n.Problem == "":
		return skipped(NamePublic, "not known yet")
	}
	return failure(NamePublic, "not found: "+n.Problem,
		"let DNS and UDP out to the servers of --stun-server; or say it with --public-ip; for a network without Internet: --stun-server none")
}

// differ says whether two lists name different addresses of the same family.
func differ(given, found []netip.Addr) bool {
	for _, g := range given {
		for _, f := range found {
			if g.Is4() == f.Is4() && g != f {
				return true
			}
		}
	}
	return false
}

func list(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "no address"
	}
	return texts(addrs, " and ")
}

// natKind judges what the router makes of addresses. The server's own ports are forwarded ones: the kind matters for what
// leaves by others.
func natKind(n Network) Check {
	switch {
	case n.Loopback:
		return skipped(NameNAT, onlyLoopback)
	case n.Kind == NoNAT:
		return good(NameNAT, "none: the public address is this machine's own")
	case n.Kind == Independent:
		return good(NameNAT, "endpoint-independent: one inner port looks alike to all")
	case n.Kind == Dependent:
		return warning(NameNAT, "symmetric: one inner port looks different to everybody",
			"forward the server's port in the router (TCP and UDP), and the relay ports or --relay-ports none: then the kind does not matter")
	case n.Kind == Blocked:
		return failure(NameNAT, "no UDP comes back from outside", "let the firewall or router pass UDP; until then calls go over TCP, and slower")
	case n.Offline:
		return skipped(NameNAT, "not looked for (--stun-server none)")
	}
	return skipped(NameNAT, "not known: it takes two STUN servers that answer")
}

// cgnat judges whether the provider itself stands in between, with a NAT that nobody at home can open.
func cgnat(n Network) Check {
	switch {
	case n.Loopback:
		return skipped(NameCGNAT, onlyLoopback)
	case n.CGNAT:
		return failure(NameCGNAT, n.CGNATWhy,
			"ask the provider for a public IPv4 address, or use IPv6; a second router of your own (a modem that routes too): set it to bridge mode; else run callbox on a rented server")
	case n.Kind == NoNAT:
		return good(NameCGNAT, "no NAT, so none of the provider's")
	case n.WAN.IsValid():
		return good(NameCGNAT, fmt.Sprintf("none: the router's own address is %v", n.WAN))
	}
	return skipped(NameCGNAT, "no sign of it, but no router has said its own address")
}

// routerMapping judges whether the router lets strangers in.
func routerMapping(n Network, port uint16) Check {
	byHand := fmt.Sprintf("forward port %d (TCP and UDP) to this machine in the router's settings, and the relay ports, or start with --relay-ports none; where that is done, all is well: --map-port off", port)
	switch {
	case n.Loopback:
		return skipped(NameRouter, onlyLoopback)
	case n.Kind == NoNAT:
		return skipped(NameRouter, "no NAT, so nothing to map")
	case n.Router == RouterMapped:
		return good(NameRouter, n.RouterD)
	case n.Router == RouterRefused && n.CGNAT:
		return failure(NameRouter, "the router does not forward: "+n.RouterD, "see "+NameCGNAT+"; with a second router of your own, forward on both")
	case n.Router == RouterRefused:
		return failure(NameRouter, "the router does not forward: "+n.RouterD, byHand)
	case n.Router == RouterNone:
		return warning(NameRouter, "no router here speaks UPnP or NAT-PMP", "switch UPnP on in the router; or "+byHand)
	case n.Router == RouterWaiting:
		return skipped(NameRouter, "not asked yet: "+n.RouterD)
	}
	why := "not asked for"
	if n.RouterD != "" {
		why += ": " + n.RouterD
	}
	return skipped(NameRouter, why)
}

// Hairpin is whether the public address works from inside.
type Hairpin struct {
	At       netip.AddrPort
	UDP, TCP error
}

// hairpin judges whether devices at home may use the same link as everybody.
func hairpin(n Network, h Hairpin) Check {
	switch {
	case n.Loopback:
		return skipped(NameHairpin, onlyLoopback)
	case len(n.public()) == 0:
		return skipped(NameHairpin, "no public address to try")
	case !n.behind():
		return skipped(NameHairpin, "the public address is this machine's own")
	case h.UDP == nil && h.TCP == nil:
		return good(NameHairpin, fmt.Sprintf("%v answers from inside, over UDP and TCP", h.At))
	}
	what := "UDP and TCP"
	switch {
	case h.UDP == nil:
		what = "TCP"
	case h.TCP == nil:
		what = "UDP"
	}
	saw := fmt.Sprintf("%v does not answer from inside over %s", h.At, what)
	if n.CGNAT {
		return warning(NameHairpin, saw, "see "+NameCGNAT)
	}
	if n.Router == RouterMapped {
		return warning(NameHairpin, saw, forwardedButSilent+"; at home, use the address of this machine meanwhile")
	}
	return warning(NameHairpin, saw,
		"either the port is not forwarded, or the router does not lead its own address back in (NAT loopback): callbox doctor --phone tells which; at home, use the address of this machine meanwhile")
}

// forwardedButSilent is said where the router forwards the port by its own word.
const forwardedButSilent = "the router says that it forwards the port: it may just not lead its own address back in (NAT loopback); callbox doctor --phone tries from outside"

// tryHairpin asks the public address from inside.
func tryHairpin(ctx context.Context, at netip.AddrPort) Hairpin {
	h := Hairpin{At: at}
	_, h.UDP = askBinding(ctx, at)
	h.TCP = connects(ctx, at)
	return h
}
