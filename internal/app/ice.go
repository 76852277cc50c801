package app

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"callbox/bus"
	"callbox/signal"
)

// iceOffer is everything the list of ICE servers is computed from. The computation is pure: nothing is resolved, and the
// same offer gives the same list.
type iceOffer struct {
	// This node.
	Host   string                 // the one by which the client reached it
	Name   string                 // --turn-host
	Public []netip.Addr           // --public-ip
	Also   []netip.Addr           // found out: for clients from outside, besides Host
	Port   int                    // the one port
	Extra  []turnPort             // --turn-listen
	UDP    bool                   // STUN and TURN answer on UDP
	TLS    func(host string) bool // whether turns: is offered for a host
	Drain  bool                   // this node takes no new allocations

	URLs   []string           // --turn-url: replaces what is computed for any node
	Others []signal.ICEServer // --ice-server, as they are

	// The cluster.
	Self  bus.NodeID
	Nodes []bus.NodeInfo
	Relay bus.NodeID // the room's relay node; "" none
	Only  bool       // only one node will do, the room's or the one where all without rooms meet: the sealed relay

	Username, Credential string
}

// turnPort is a further listener for TURN.
type turnPort struct {
	Network string // udp, tcp or tls
	Port    int
}

// otherNodes is how many nodes besides the first are offered. More would make every browser gather more candidates than
// help it.
const otherNodes = 1

// servers is the list in the order a browser should try: STUN, then TURN over UDP, TCP and TLS on the nearest node, then
// other nodes, then other people's servers.
func (o iceOffer) servers() []signal.ICEServer {
	var out []signal.ICEServer
	stun := false
	for _, urls := range o.nodes() {
		var stuns, turns []string
		for _, u := range urls {
			if strings.HasPrefix(u, "stun") {
				stuns = append(stuns, u)
			} else {
				turns = append(turns, u)
			}
		}
		if len(stuns) > 0 && !stun {
			stun = true
			out = append(out, signal.ICEServer{URLs: stuns})
		}
		if len(turns) > 0 {
			out = append(out, signal.ICEServer{URLs: turns, Username: o.Username, Credential: o.Credential})
		}
	}
	return append(out, o.Others...)
}

// nodes lists the URLs of each node to offer, the best first.
func (o iceOffer) nodes() [][]string {
	if len(o.URLs) > 0 {
		return [][]string{o.URLs}
	}
	local := o.local()
	if o.Only && o.Relay == "" {
		o.Relay = o.meeting()
	}
	var others []bus.NodeInfo
	for _, n := range o.Nodes {
		if n.ID != o.Self && !n.Draining && len(n.TURN) > 0 {
			others = append(others, n)
		}
	}
	// Least loaded first; by id among equals, so that the order does not change from request to request.
	slices.SortFunc(others, func(a, b bus.NodeInfo) int {
		if a.Allocations != b.Allocations {
			return a.Allocations - b.Allocations
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	var out [][]string
	if o.Relay == o.Self && o.Relay != "" {
		out = append(out, local)
	}
	for _, n := range others {
		if n.ID == o.Relay {
			out = append(out, n.TURN)
		}
	}
	if o.Only && len(out) > 0 {
		return out
	}
	if o.Relay != o.Self && !o.Drain {
		out = append(out, local)
	}
	room := otherNodes
	for _, n := range others {
		if n.ID != o.Relay && room > 0 {
			room--
			out = append(out, n.TURN)
		}
	}
	if len(out) == 0 {
		out = append(out, local) // draining and alone: STUN still answers
	}
	return out
}

// meeting is the node for clients that name no room, where two of them can meet only if every node names the same one: the
// oldest that takes allocations, so that it changes when it leaves and not when others come.
func (o iceOffer) meeting() bus.NodeID {
	var oldest bus.NodeInfo
	for _, n := range o.Nodes {
		if n.Draining || len(n.TURN) == 0 {
			continue
		}
		if age := n.Started.Compare(oldest.Started); oldest.ID == "" || age < 0 || age == 0 && n.ID < oldest.ID {
			oldest = n
		}
	}
	return oldest.ID
}

// local are this node's own URLs.
func (o iceOffer) local() []string {
	hosts := o.hosts()
	var stun, udp, tcp, tls []string
	for _, host := range hosts {
		add := func(network string, port int) {
			at := hostPort(host, port)
			switch network {
			case "udp":
				stun = append(stun, "stun:"+at)
				udp = append(udp, "turn:"+at+"?transport=udp")
			case "tcp":
				tcp = append(tcp, "turn:"+at+"?transport=tcp")
			case "tls":
				if o.TLS != nil && o.TLS(host) {
					tls = append(tls, "turns:"+at+"?transport=tcp")
				}
			}
		}
		if o.UDP {
			add("udp", o.Port)
		}
		add("tcp", o.Port)
		add("tls", o.Port)
		for _, extra := range o.Extra {
			add(extra.Network, extra.Port)
		}
	}
	if o.UDP && o.Name == "" {
		for _, addr := range o.Also {
			// A name may be out of date, or lead to a proxy that carries HTTP alone.
			if u := "turn:" + hostPort(addr.String(), o.Port) + "?transport=udp"; !slices.Contains(udp, u) {
				udp = append(udp, u)
			}
		}
	}
	if len(stun) > 1 {
		stun = stun[:1] // one answer is as good as two, and each costs the browser time
	}
	return slices.Concat(stun, udp, tcp, tls)
}

// hosts are the names or addresses of this node, without port.
func (o iceOffer) hosts() []string {
	if o.Name != "" {
		return []string{o.Name}
	}
	if len(o.Public) > 0 {
		var out []string
		for _, a := range o.Public {
			out = append(out, a.String())
		}
		return out
	}
	return []string{o.Host}
}

// hostPort joins them as RFC 7065 wants: an IPv6 address in brackets. A name keeps its form, and so does an address
// without zone.
func hostPort(host string, port int) string {
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
}
