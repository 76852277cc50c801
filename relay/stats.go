package relay

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Transport is how a client reaches the server.
type Transport uint8

// The transports.
const (
	UDP Transport = iota
	TCP
	TLS
	transports = 3
)

func (t Transport) String() string { return [transports]string{"udp", "tcp", "tls"}[t] }

// drop is a reason for a packet not to be answered or passed on.
type drop int

const (
	dropMalformed drop = iota
	dropUnknownMethod
	dropUnexpected // a class or indication that clients do not send
	dropUnauthRate
	dropNoAllocation
	dropNoChannel
	dropNoPermission
	dropForbiddenPeer
	dropFamily
	dropSealed
	dropUserBitrate
	dropTotalBitrate
	dropSlowClient
	dropSend
	dropTooLong // counted by the sockets
	drops       = int(dropTooLong) + 1
)

var dropNames = [drops]string{"malformed", "unknown-method", "unexpected", "unauthenticated-rate", "no-allocation",
	"no-channel", "no-permission", "forbidden-peer", "address-family", "sealed", "user-bitrate", "total-bitrate",
	"slow-client", "send-failed", "too-long"}

// authFailure is a reason for a request not to be taken for its user's.
type authFailure int

const (
	authNonce      authFailure = iota // stale, foreign or invented
	authRealm                         // another realm
	authUser                          // Config.Keys knows no such user, or its credential has expired
	authPassword                      // no key fits
	authOwner                         // right, but another user's allocation
	authIncomplete                    // a credential's attribute is missing
	authFailures   = int(authIncomplete) + 1
)

var authNames = [authFailures]string{"nonce", "realm", "user", "password", "owner", "incomplete"}

// refusal is a quota that turned a request down.
type refusal int

const (
	refusedOwner refusal = iota
	refusedTotal
	refusedPorts
	refusedPermissions
	refusedChannels
	refusedConnections
	refusedDraining
	refusals = int(refusedDraining) + 1
)

var refusalNames = [refusals]string{"owner-allocations", "total-allocations", "ports", "permissions", "channels",
	"connections", "draining"}

// counter counts packets and their payload's bytes.
type counter struct{ packets, bytes atomic.Uint64 }

func (c *counter) add(bytes int) {
	c.packets.Add(1)
	c.bytes.Add(uint64(bytes))
}

func (c *counter) traffic() Traffic { return Traffic{c.packets.Load(), c.bytes.Load()} }

// counters are the server's numbers, all of them only growing except streams.
type counters struct {
	toPeers, toClients, inside counter
	drops                      [drops]atomic.Uint64
	auth                       [authFailures]atomic.Uint64
	refused                    [refusals]atomic.Uint64
	created                    atomic.Uint64
	bindings                   atomic.Uint64
	challenges                 atomic.Uint64
	streams                    [transports]atomic.Int64
	tooLong                    atomic.Uint64
}

func (c *counters) drop(d drop)        { c.drops[d].Add(1) }
func (c *counters) fail(f authFailure) { c.auth[f].Add(1) }
func (c *counters) refuse(r refusal)   { c.refused[r].Add(1) }

// Traffic is what was relayed one way; bytes are those of the payload.
type Traffic struct{ Packets, Bytes uint64 }

// AllocationKind is how a client reaches its allocations and how these reach peers.
type AllocationKind struct {
	Transport Transport
	Family    int // 4 or 6: of the relayed address
}

// Stats are the server's numbers at one moment. All but Allocations and Streams only grow. Every known reason is a key of its
// map, with 0 where it has not happened.
type Stats struct {
	Allocations map[AllocationKind]int // open relayed addresses; a dual allocation counts once in each family
	Created     uint64                 // allocations ever made
	Streams     map[Transport]int      // open TCP and TLS connections

	ToPeers   Traffic // from clients to the network
	ToClients Traffic // from the network to clients
	Inside    Traffic // between two allocations of this server

	Bindings      uint64 // Binding requests answered
	Challenges    uint64 // requests without a credential, answered 401
	Drops         map[string]uint64
	AuthFailures  map[string]uint64
	QuotaRefusals map[string]uint64
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	c := &s.counters
	out := Stats{
		Allocations: make(map[AllocationKind]int), Streams: make(map[Transport]int),
		Created: c.created.Load(), Bindings: c.bindings.Load(), Challenges: c.challenges.Load(),
		ToPeers: c.toPeers.traffic(), ToClients: c.toClients.traffic(), Inside: c.inside.traffic(),
		Drops:         make(map[string]uint64, drops),
		AuthFailures:  make(map[string]uint64, authFailures),
		QuotaRefusals: make(map[string]uint64, refusals),
	}
	for _, t := range []Transport{UDP, TCP, TLS} {
		out.Allocations[AllocationKind{t, 4}], out.Allocations[AllocationKind{t, 6}] = 0, 0
		if t != UDP {
			out.Streams[t] = int(c.streams[t].Load())
		}
	}
	for _, a := range s.table.list() {
		for f := range a.relays {
			if a.relays[f].Load() != nil {
				out.Allocations[AllocationKind{a.client.transport, 4 + 2*f}]++
			}
		}
	}
	c.drops[dropTooLong].Store(c.tooLong.Load())
	for i, name := range dropNames {
		out.Drops[name] = c.drops[i].Load()
	}
	for i, name := range authNames {
		out.AuthFailures[name] = c.auth[i].Load()
	}
	for i, name := range refusalNames {
		out.QuotaRefusals[name] = c.refused[i].Load()
	}
	return out
}

// AllocationInfo describes one allocation to an administrator.
type AllocationInfo struct {
	Owner     Owner
	Transport Transport
	Client    netip.AddrPort
	Relayed   []netip.AddrPort // one, or one of each family
	ToPeers   Traffic
	ToClient  Traffic
	Created   time.Time
}

// Allocations lists the open allocations, in no order.
func (s *Server) Allocations() []AllocationInfo {
	list := s.table.list()
	out := make([]AllocationInfo, 0, len(list))
	for _, a := range list {
		info := AllocationInfo{Owner: a.owner, Transport: a.client.transport, Client: a.client.remote,
			ToPeers: a.toPeers.traffic(), ToClient: a.toClient.traffic(), Created: a.created}
		for f := range a.relays {
			if r := a.relays[f].Load(); r != nil {
				info.Relayed = append(info.Relayed, r.addr)
			}
		}
		out = append(out, info)
	}
	return out
}
