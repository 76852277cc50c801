package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// NetworkStats is how the host stands to the Internet.
type NetworkStats struct {
	Watched bool              // somebody looks; else nothing is shown
	Known   map[string]bool   // by family, "ipv4" and "ipv6": the public address is known
	Mapping map[string]string // by family: the kind of translation
	CGNAT   bool
	Router  string // the protocol of the router that answers, "" none
	Fault   string // why the router does not forward every port, "" none
	Ports   int    // that the router forwards
	Checked time.Time
}

// networkCollector shows it.
type networkCollector func() NetworkStats

type networkDescs struct{ known, mapping, cgnat, router, fault, ports, checked *prometheus.Desc }

func (networkCollector) descs() networkDescs {
	return networkDescs{
		desc("public_address_known", "1 where the public address of the family is known.", "family"),
		desc("nat_mapping", "The kind of translation between this host and the Internet; always 1.", "family", "mapping"),
		desc("cgnat", "1 where the provider shares the IPv4 address, so that nobody can come in by it."),
		desc("router_found", "1 while a router answers, by protocol.", "protocol"),
		desc("router_fault", "1 while the router does not forward every port, by reason.", "reason"),
		desc("router_forwarded_ports", "Ports that the router forwards to this host."),
		desc("network_checked_timestamp_seconds", "When the public address was looked for last, in Unix time."),
	}
}

func (c networkCollector) Describe(ch chan<- *prometheus.Desc) {
	d := c.descs()
	for _, desc := range []*prometheus.Desc{d.known, d.mapping, d.cgnat, d.router, d.fault, d.ports, d.checked} {
		ch <- desc
	}
}

func (c networkCollector) Collect(ch chan<- prometheus.Metric) {
	d, s, out := c.descs(), c(), sink(ch)
	if !s.Watched || s.Checked.IsZero() {
		return
	}
	for family, known := range s.Known {
		out.gauge(d.known, number(known), family)
	}
	for family, mapping := range s.Mapping {
		out.gauge(d.mapping, 1, family, mapping)
	}
	out.gauge(d.cgnat, number(s.CGNAT))
	if s.Router != "" {
		out.gauge(d.router, 1, s.Router)
	}
	if s.Fault != "" {
		out.gauge(d.fault, 1, s.Fault)
	}
	out.gauge(d.ports, float64(s.Ports))
	out.gauge(d.checked, float64(s.Checked.Unix()))
}
