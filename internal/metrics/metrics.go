// Package metrics shows the counters of the other packages to Prometheus. It counts nothing itself: a scrape reads the
// packages' Stats. No label carries a user's name, a room or an address: labels are reasons, kinds and transports, whose
// number does not grow.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"callbox/bus"
	"callbox/internal/webhook"
	"callbox/relay"
	"callbox/signal"
)

// Sources are where a scrape reads. All are required and may be called from several goroutines.
type Sources struct {
	Bus         func() bus.Stats
	Relay       func() relay.Stats
	Signal      func() signal.Stats
	Ports       func() PortStats
	Network     func() NetworkStats
	Certificate func() CertificateStats
	Doctor      func() DoctorStats
	Draining    func() bool
	Version     string
	Webhook     func() webhook.Stats
}

// PortStats counts the TCP connections that came to the listeners.
type PortStats struct {
	Connections map[string]uint64 // by what they turned out to be: "http", "tls", "stream", "proxy"; TLS ones count twice
	Refused     map[string]uint64 // by reason
}

// Handler answers a scrape. Each has a registry of its own, so that several servers live in one process.
func Handler(s Sources) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		processCollector{s},
		portCollector(s.Ports),
		networkCollector(s.Network),
		certificateCollector(s.Certificate),
		doctorCollector(s.Doctor),
		busCollector(s.Bus),
		relayCollector(s.Relay),
		signalCollector(s.Signal),
		webhookCollector(s.Webhook),
	)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// desc describes a metric of callbox.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("callbox_"+name, help, labels, nil)
}

// sink sends metrics of one scrape.
type sink chan<- prometheus.Metric

func (c sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (c sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// counters sends one counter for each key of a map, which is the last label.
func (c sink) counters(d *prometheus.Desc, values map[string]uint64) {
	for label, v := range values {
		c.counter(d, v, label)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// processCollector is what concerns the whole process.
type processCollector struct{ s Sources }

func (p processCollector) descs() (version, draining *prometheus.Desc) {
	return desc("build_info", "The version that runs; always 1.", "version"),
		desc("draining", "1 while the process stops and takes no new clients.")
}

func (p processCollector) Describe(ch chan<- *prometheus.Desc) {
	version, draining := p.descs()
	ch <- version
	ch <- draining
}

func (p processCollector) Collect(ch chan<- prometheus.Metric) {
	version, draining := p.descs()
	sink(ch).gauge(version, 1, p.s.Version)
	sink(ch).gauge(draining, number(p.s.Draining()))
}
