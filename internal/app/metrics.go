package app

import (
	"net/http"

	"callbox/internal/metrics"
)

// portStats sums the counters of all listeners.
func (a *App) portStats() metrics.PortStats {
	out := metrics.PortStats{Connections: map[string]uint64{}, Refused: map[string]uint64{}}
	for _, p := range append([]*port{a.port}, a.extra...) {
		for name, n := range map[string]uint64{
			"http": p.stats.HTTP.Load(), "tls": p.stats.TLS.Load(), "stream": p.stats.Stream.Load(), "proxy": p.stats.Proxy.Load(),
		} {
			out.Connections[name] += n
		}
		for name, n := range map[string]uint64{
			"per-address": p.stats.Refused.Load(), "timeout": p.stats.Timeout.Load(),
			"malformed": p.stats.Malformed.Load(), "accept-error": p.stats.AcceptFailures.Load(),
		} {
			out.Refused[name] += n
		}
	}
	return out
}

// metricsHandler answers --metrics-listen, which is open to whoever can reach it.
func (s *web) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", methods{"GET": s.metrics.ServeHTTP})
	mux.HandleFunc("/", s.notFound)
	return withHeaders(mux)
}
