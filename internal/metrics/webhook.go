package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"callbox/internal/webhook"
)

// webhookCollector shows what other programs are told.
type webhookCollector func() webhook.Stats

func (webhookCollector) descs() (queued, sent, retried, dropped *prometheus.Desc) {
	return desc("webhook_queued", "Events that wait for their receivers."),
		desc("webhook_sent_total", "Events that a receiver has taken."),
		desc("webhook_retries_total", "Tries beyond the first."),
		desc("webhook_dropped_total", "Events given up, by reason.", "reason")
}

func (c webhookCollector) Describe(ch chan<- *prometheus.Desc) {
	queued, sent, retried, dropped := c.descs()
	for _, d := range []*prometheus.Desc{queued, sent, retried, dropped} {
		ch <- d
	}
}

func (c webhookCollector) Collect(ch chan<- prometheus.Metric) {
	queued, sent, retried, dropped := c.descs()
	s, to := c(), sink(ch)
	to.gauge(queued, float64(s.Queued))
	to.counter(sent, s.Sent)
	to.counter(retried, s.Retried)
	to.counters(dropped, s.Dropped)
}
