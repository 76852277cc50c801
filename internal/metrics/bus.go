package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"callbox/bus"
)

// busCollector shows the link to the other nodes.
type busCollector func() bus.Stats

type busDescs struct {
	up, nodes, peers, published, received, lost, refused, resent, downs, latency *prometheus.Desc
}

func (busCollector) descs() busDescs {
	return busDescs{
		up:        desc("bus_link_up", "1 while this node is in touch with what the nodes share."),
		nodes:     desc("bus_nodes", "Live nodes, this one included."),
		peers:     desc("bus_directory_peers", "Peers that this node holds in the directory."),
		published: desc("bus_published_total", "Messages handed to the bus for other nodes."),
		received:  desc("bus_received_total", "Messages received from other nodes."),
		lost:      desc("bus_lost_total", "Messages that came back undelivered, by reason.", "reason"),
		refused:   desc("bus_refused_total", "Messages that the bus did not take, by reason.", "reason"),
		resent:    desc("bus_resent_total", "Messages sent again because no receipt came."),
		downs:     desc("bus_link_downs_total", "Times the link was lost."),
		latency:   desc("bus_publish_seconds", "From sending to the broker's answer."),
	}
}

func (c busCollector) Describe(ch chan<- *prometheus.Desc) {
	d := c.descs()
	for _, one := range []*prometheus.Desc{d.up, d.nodes, d.peers, d.published, d.received, d.lost, d.refused, d.resent, d.downs, d.latency} {
		ch <- one
	}
}

func (c busCollector) Collect(ch chan<- prometheus.Metric) {
	d, s, to := c.descs(), c(), sink(ch)
	to.gauge(d.up, number(s.LinkUp))
	to.gauge(d.nodes, float64(s.Nodes))
	to.gauge(d.peers, float64(s.Peers))
	to.counter(d.published, s.Published)
	to.counter(d.received, s.Received)
	to.counters(d.lost, s.Lost)
	to.counters(d.refused, s.Refused)
	to.counter(d.resent, s.Resent)
	to.counter(d.downs, s.LinkDowns)
	ch <- histogram(d.latency, s.Latency)
}

// histogram turns counts of each bucket into Prometheus' cumulative ones.
func histogram(d *prometheus.Desc, h bus.Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var sum uint64
	for i, n := range h.Counts {
		sum += n
		if i < len(h.Bounds) {
			buckets[h.Bounds[i].Seconds()] = sum
		}
	}
	return prometheus.MustNewConstHistogram(d, sum, h.Sum.Seconds(), buckets)
}
