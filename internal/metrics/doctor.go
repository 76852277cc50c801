package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DoctorStats is what the last examination of the server by itself found.
type DoctorStats struct {
	At     time.Time      // zero: there was none yet
	Checks map[string]int // by name: 0 well or skipped, 1 a warning, 2 a failure
}

// doctorCollector shows it. Its labels are names of checks; what they saw, addresses among it, is not told.
type doctorCollector func() DoctorStats

func (doctorCollector) descs() (check, at *prometheus.Desc) {
	return desc("doctor_check", "The last verdict of each check of callbox doctor: 0 well or skipped, 1 a warning, 2 a failure.", "check"),
		desc("doctor_last_run_timestamp_seconds", "When the server last examined itself.")
}

func (doctorCollector) Describe(ch chan<- *prometheus.Desc) {
	check, at := doctorCollector(nil).descs()
	ch <- check
	ch <- at
}

func (c doctorCollector) Collect(ch chan<- prometheus.Metric) {
	check, at := c.descs()
	s := c()
	if s.At.IsZero() {
		return
	}
	for name, grave := range s.Checks {
		sink(ch).gauge(check, float64(grave), name)
	}
	sink(ch).gauge(at, float64(s.At.Unix()))
}
