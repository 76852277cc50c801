package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"callbox/bus"
	"callbox/internal/webhook"
	"callbox/relay"
	"callbox/signal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sources() Sources {
	return Sources{
		Bus: func() bus.Stats {
			return bus.Stats{
				LinkUp: true, Nodes: 3, Published: 7, Lost: map[string]uint64{"node-gone": 2},
				Latency: bus.Histogram{Bounds: []time.Duration{time.Millisecond, time.Second}, Counts: []uint64{4, 2, 1}, Sum: 3 * time.Second},
			}
		},
		Relay: func() relay.Stats {
			return relay.Stats{
				Allocations: map[relay.AllocationKind]int{{Transport: relay.TCP, Family: 6}: 5},
				Streams:     map[relay.Transport]int{relay.TLS: 4},
				ToPeers:     relay.Traffic{Packets: 10, Bytes: 1000},
				Drops:       map[string]uint64{"malformed": 1}, AuthFailures: map[string]uint64{"password": 2}, QuotaRefusals: map[string]uint64{"ports": 3},
			}
		},
		Signal: func() signal.Stats {
			return signal.Stats{Connections: 11, Held: 2, Messages: map[string]uint64{"join": 9}, Remote: 6, Closed: map[int]uint64{4003: 1}}
		},
		Ports: func() PortStats {
			return PortStats{Connections: map[string]uint64{"http": 8}, Refused: map[string]uint64{"timeout": 1}}
		},
		Certificate: func() CertificateStats {
			return CertificateStats{Source: "acme", Expires: time.Unix(1_800_000_000, 0), Missing: 1, Failing: true}
		},
		Network: func() NetworkStats {
			return NetworkStats{
				Watched: true, Known: map[string]bool{"ipv4": true}, Mapping: map[string]string{"ipv4": "endpoint-independent"}, CGNAT: true,
				Router: "nat-pmp", Fault: "conflict", Ports: 2, Checked: time.Unix(1700000000, 0),
			}
		},
		Doctor: func() DoctorStats {
			return DoctorStats{At: time.Unix(1700000000, 0), Checks: map[string]int{"clock": 1}}
		},
		Webhook: func() webhook.Stats {
			return webhook.Stats{Sent: 71, Retried: 72, Dropped: map[string]uint64{"full": 73}, Queued: 74}
		},
		Draining: func() bool { return true },
		Version:  "1.2.3",
	}
}

func TestScrapeShowsWhatThePackagesCounted(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(sources()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body := w.Body.String()
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, body)
	}
	for _, line := range []string{
		`callbox_build_info{version="1.2.3"} 1`,
		`callbox_draining 1`,
		`callbox_public_address_known{family="ipv4"} 1`,
		`callbox_nat_mapping{family="ipv4",mapping="endpoint-independent"} 1`,
		`callbox_cgnat 1`,
		`callbox_router_found{protocol="nat-pmp"} 1`,
		`callbox_router_fault{reason="conflict"} 1`,
		`callbox_router_forwarded_ports 2`,
		`callbox_network_checked_timestamp_seconds 1.7e+09`,
		`callbox_certificate_expiry_timestamp_seconds{source="acme"} 1.8e+09`,
		`callbox_certificates_missing 1`,
		`callbox_certificate_failing 1`,
		`callbox_doctor_check{check="clock"} 1`,
		`callbox_doctor_last_run_timestamp_seconds 1.7e+09`,
		`callbox_bus_link_up 1`,
		`callbox_bus_nodes 3`,
		`callbox_bus_lost_total{reason="node-gone"} 2`,
		`callbox_bus_publish_seconds_bucket{le="0.001"} 4`,
		`callbox_bus_publish_seconds_bucket{le="1"} 6`,
		`callbox_bus_publish_seconds_bucket{le="+Inf"} 7`,
		`callbox_bus_publish_seconds_sum 3`,
		`callbox_relay_allocations{family="ipv6",transport="tcp"} 5`,
		`callbox_relay_streams{transport="tls"} 4`,
		`callbox_relay_packets_total{direction="to-peers"} 10`,
		`callbox_relay_bytes_total{direction="to-peers"} 1000`,
		`callbox_relay_dropped_total{reason="malformed"} 1`,
		`callbox_relay_auth_failures_total{reason="password"} 2`,
		`callbox_relay_quota_refusals_total{limit="ports"} 3`,
		`callbox_signal_connections 11`,
		`callbox_signal_sessions_held 2`,
		`callbox_signal_messages_total{kind="join"} 9`,
		`callbox_signal_delivered_total{way="remote"} 6`,
		`callbox_signal_closed_total{code="4003"} 1`,
		`callbox_webhook_queued 74`,
		`callbox_webhook_sent_total 71`,
		`callbox_webhook_retries_total 72`,
		`callbox_webhook_dropped_total{reason="full"} 73`,
		`callbox_port_connections_total{protocol="http"} 8`,
		`callbox_port_refused_total{reason="timeout"} 1`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

func TestNamesFollowPrometheusConventions(t *testing.T) {
	s := sources()
	for _, c := range []prometheus.Collector{processCollector{s}, portCollector(s.Ports), busCollector(s.Bus), relayCollector(s.Relay), signalCollector(s.Signal), webhookCollector(s.Webhook)} {
		r := prometheus.NewPedanticRegistry() // also checks that what is collected was described
		if err := r.Register(c); err != nil {
			t.Fatal(err)
		}
		problems, err := testutil.GatherAndLint(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestServersOfOneProcessDoNotShareARegistry(t *testing.T) {
	Handler(sources())
	Handler(sources()) // a shared one would panic
}
