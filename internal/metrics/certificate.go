package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// CertificateStats is how it stands with what TLS is served with.
type CertificateStats struct {
	Source  string    // "acme", "files" or "local-ca"
	Expires time.Time // the earliest end; zero: none is kept
	Missing int       // names there is no certificate for yet
	Failing bool      // the last order, renewal or reading has failed
}

// certificateCollector shows it.
type certificateCollector func() CertificateStats

func (certificateCollector) descs() (expires, missing, failing *prometheus.Desc) {
	return desc("certificate_expiry_timestamp_seconds", "When the first certificate ends, in Unix time, by where it comes from.", "source"),
		desc("certificates_missing", "Names that there is no certificate for yet."),
		desc("certificate_failing", "1 while the last order, renewal or reading of a certificate has failed.")
}

func (c certificateCollector) Describe(ch chan<- *prometheus.Desc) {
	expires, missing, failing := c.descs()
	for _, d := range []*prometheus.Desc{expires, missing, failing} {
		ch <- d
	}
}

func (c certificateCollector) Collect(ch chan<- prometheus.Metric) {
	expires, missing, failing := c.descs()
	s, out := c(), sink(ch)
	if !s.Expires.IsZero() {
		out.gauge(expires, float64(s.Expires.Unix()), s.Source)
	}
	out.gauge(missing, float64(s.Missing))
	out.gauge(failing, number(s.Failing))
}
