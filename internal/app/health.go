package app

import (
	"net/http"
	"time"

	"callbox/internal/nat"
)

// getHealth says that the process answers.
func (s *web) getHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readiness answers /readyz.
type readiness struct {
	Status string `json:"status"` // "ready" or "draining"
	Bus    string `json:"bus"`    // "ok" or "degraded"
	*readyDetails
}

// readyDetails are what administrators and --metrics-listen are told besides.
type readyDetails struct {
	Node   string       `json:"node"`
	Nodes  int          `json:"nodes"`
	Doctor *readyDoctor `json:"doctor,omitempty"` // none before the first examination
	// Certificate is how it stands with what TLS is served with.
	Certificate readyCertificate `json:"certificate"`
	// Network is how this host stands to the Internet; absent where nobody looks.
	Network *nat.Report `json:"network,omitempty"`
}

// readyDoctor is how the last examination ended.
type readyDoctor struct {
	Verdict string    `json:"verdict"` // the gravest: "ok", "warn" or "fail"
	Fail    []string  `json:"fail"`    // names of checks
	Warn    []string  `json:"warn"`
	At      time.Time `json:"at"`
}

// getReady says whether new clients are welcome, to whoever asks; more only to administrators.
func (s *web) getReady(w http.ResponseWriter, r *http.Request) { s.writeReady(w, s.fromAdmin(r)) }

// writeReady answers /readyz. A bus that is down does not make it say no: local calls go on, and a load balancer that took
// every node out at once would end them.
func (s *web) writeReady(w http.ResponseWriter, details bool) {
	status := http.StatusOK
	out := readiness{Status: "ready", Bus: "ok"}
	if !s.linkUp() {
		out.Bus = "degraded"
	}
	if s.draining() {
		status, out.Status = http.StatusServiceUnavailable, "draining"
	}
	if details {
		out.readyDetails = &readyDetails{Node: s.bus.Self().Name(), Nodes: len(s.bus.Nodes()), Network: s.network(), Certificate: certificateReadiness(s.certificate()), Doctor: s.doctor()}
	}
	writeJSON(w, status, out)
}

// getMetrics answers administrators. This machine has --metrics-listen: on the one port a proxy on this machine looks like it.
func (s *web) getMetrics(w http.ResponseWriter, r *http.Request) {
	if !s.fromAdmin(r) {
		writeError(w, &apiError{Status: http.StatusForbidden, Code: "not-allowed", Message: "metrics are for administrators here, and for this machine at --metrics-listen"})
		return
	}
	s.metrics.ServeHTTP(w, r)
}

// fromAdmin says that a logged-in administrator asks.
func (s *web) fromAdmin(r *http.Request) bool {
	c, err := s.cookieCaller(r)
	return err == nil && c.Admin
}
