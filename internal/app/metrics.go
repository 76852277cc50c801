package app

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"callbox/internal/config"
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

// Where --metrics-listen auto looks for a free port: several nodes on one machine find one each.
const (
	metricsPort  = 9464
	metricsPorts = 16
)

// openMetrics opens --metrics-listen; nil is nowhere. An address that was asked for must be free. Automatically, a server
// without metrics is better than none.
func openMetrics(cfg config.Config, log *slog.Logger) (net.Listener, error) {
	switch {
	case cfg.MetricsListen.Off():
		return nil, nil
	case !cfg.MetricsListen.Auto:
		return listenTCP(cfg.MetricsListen.Addr, "metrics-listen")
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	var last error
	for port := uint16(metricsPort); port < metricsPort+metricsPorts; port++ {
		if portNamed(cfg, port) {
			continue
		}
		l, err := net.Listen("tcp", netip.AddrPortFrom(loopback, port).String())
		if err == nil {
			return l, nil
		}
		last = err
	}
	log.Warn("no port for the metrics is free; choose one with --metrics-listen, or off", logError, last)
	return nil, nil
}

// portNamed says that a setting wants this port for something else.
func portNamed(cfg config.Config, port uint16) bool {
	return cfg.Listen.Port() == port || cfg.HTTPListen.Port() == port || slices.ContainsFunc(cfg.TURNListen, func(l config.Listener) bool { return l.Addr.Port() == port })
}

// metricsHandler answers --metrics-listen, which is open to whoever can reach it.
func (s *web) metricsHandler(addr net.Addr) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", methods{"GET": s.metrics.ServeHTTP})
	mux.Handle("/healthz", methods{"GET": s.getHealth})
	mux.Handle("/readyz", methods{"GET": func(w http.ResponseWriter, _ *http.Request) { s.writeReady(w, true) }})
	mux.HandleFunc("/", s.notFound)
	h := withHeaders(mux)
	if addrOf(addr).IsLoopback() {
		h = forThisMachine(h)
	}
	return h
}

// forThisMachine refuses the pages of a browser on this machine whose name was made to lead here (DNS rebinding).
func forThisMachine(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (client{Addr: netip.IPv6Loopback(), Host: r.Host}).Loopback() {
			next.ServeHTTP(w, r)
			return
		}
		writeError(w, &apiError{Status: http.StatusForbidden, Code: "not-allowed", Message: "ask by address or as localhost"})
	})
}
