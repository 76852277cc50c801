package metrics

import "github.com/prometheus/client_golang/prometheus"

// portCollector shows what comes to the TCP listeners.
type portCollector func() PortStats

func (portCollector) descs() (connections, refused *prometheus.Desc) {
	return desc("port_connections_total", "TCP connections, by protocol; one inside TLS counts as tls too.", "protocol"),
		desc("port_refused_total", "TCP connections that were closed before a protocol took them over, by reason.", "reason")
}

func (c portCollector) Describe(ch chan<- *prometheus.Desc) {
	connections, refused := c.descs()
	ch <- connections
	ch <- refused
}

func (c portCollector) Collect(ch chan<- prometheus.Metric) {
	connections, refused := c.descs()
	s := c()
	sink(ch).counters(connections, s.Connections)
	sink(ch).counters(refused, s.Refused)
}
