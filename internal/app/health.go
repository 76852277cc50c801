package app

import (
	"net/http"
)

// getHealth says that the process answers.
func (s *web) getHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readiness answers /readyz.
type readiness struct {
	Status string `json:"status"` // "ready" or "draining"
	Bus    string `json:"bus"`    // "ok" or "degraded"
	Node   string `json:"node"`
	Nodes  int    `json:"nodes"`
}

// getReady says whether new clients are welcome. A bus that is down does not make it say no: local calls go on, and a load
// balancer that took every node out at once would end them.
func (s *web) getReady(w http.ResponseWriter, _ *http.Request) {
	status := http.StatusOK
	out := readiness{Status: "ready", Bus: "ok", Node: s.bus.Self().Name(), Nodes: len(s.bus.Nodes())}
	if !s.linkUp() {
		out.Bus = "degraded"
	}
	if s.draining() {
		status, out.Status = http.StatusServiceUnavailable, "draining"
	}
	writeJSON(w, status, out)
}

// getMetrics answers this machine and administrators.
func (s *web) getMetrics(w http.ResponseWriter, r *http.Request) {
	if !clientOf(r).Loopback() {
		if c, err := s.cookieCaller(r); err != nil || !c.Admin {
			writeError(w, &apiError{Status: http.StatusForbidden, Code: "not-allowed", Message: "metrics are for this machine, for administrators, and for --metrics-listen"})
			return
		}
	}
	s.metrics.ServeHTTP(w, r)
}
