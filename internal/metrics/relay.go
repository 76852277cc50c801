package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"callbox/relay"
)

// relayCollector shows STUN and TURN.
type relayCollector func() relay.Stats

type relayDescs struct {
	allocations, created, streams, packets, bytes, bindings, challenges, drops, auth, quota *prometheus.Desc
}

func (relayCollector) descs() relayDescs {
	return relayDescs{
		allocations: desc("relay_allocations", "Open relayed addresses, by the client's transport and the address's family.", "transport", "family"),
		created:     desc("relay_allocations_created_total", "Allocations made."),
		streams:     desc("relay_streams", "Open TURN connections over TCP and TLS.", "transport"),
		packets:     desc("relay_packets_total", "Packets relayed, by direction; inside: between two allocations of this server.", "direction"),
		bytes:       desc("relay_bytes_total", "Bytes of payload relayed, by direction.", "direction"),
		bindings:    desc("relay_bindings_total", "STUN Binding requests answered."),
		challenges:  desc("relay_challenges_total", "Requests without a credential, which are asked for one."),
		drops:       desc("relay_dropped_total", "Packets dropped, by reason.", "reason"),
		auth:        desc("relay_auth_failures_total", "Requests with a credential that was refused, by reason.", "reason"),
		quota:       desc("relay_quota_refusals_total", "Requests refused because of a limit, by limit.", "limit"),
	}
}

func (c relayCollector) Describe(ch chan<- *prometheus.Desc) {
	d := c.descs()
	for _, one := range []*prometheus.Desc{d.allocations, d.created, d.streams, d.packets, d.bytes, d.bindings, d.challenges, d.drops, d.auth, d.quota} {
		ch <- one
	}
}

func (c relayCollector) Collect(ch chan<- prometheus.Metric) {
	d, s, to := c.descs(), c(), sink(ch)
	for kind, n := range s.Allocations {
		to.gauge(d.allocations, float64(n), kind.Transport.String(), "ipv"+strconv.Itoa(kind.Family))
	}
	for transport, n := range s.Streams {
		to.gauge(d.streams, float64(n), transport.String())
	}
	to.counter(d.created, s.Created)
	for direction, t := range map[string]relay.Traffic{"to-peers": s.ToPeers, "to-clients": s.ToClients, "inside": s.Inside} {
		to.counter(d.packets, t.Packets, direction)
		to.counter(d.bytes, t.Bytes, direction)
	}
	to.counter(d.bindings, s.Bindings)
	to.counter(d.challenges, s.Challenges)
	to.counters(d.drops, s.Drops)
	to.counters(d.auth, s.AuthFailures)
	to.counters(d.quota, s.QuotaRefusals)
}
