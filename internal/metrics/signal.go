package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"callbox/signal"
)

// signalCollector shows signaling.
type signalCollector func() signal.Stats

type signalDescs struct {
	connections, accepted, rooms, sessions, held, queued, messages, delivered, undeliverable, errors, drops, closed, resumed *prometheus.Desc
	protoConnections, protoAccepted, protoMessages, protoIgnored, protoRefused                                               *prometheus.Desc
}

func (signalCollector) descs() signalDescs {
	return signalDescs{
		connections:   desc("signal_connections", "Open WebSocket connections."),
		accepted:      desc("signal_connections_total", "WebSocket connections ever opened."),
		rooms:         desc("signal_rooms", "Rooms with members on this node."),
		sessions:      desc("signal_sessions", "Sessions on this node, those held for resume included."),
		held:          desc("signal_sessions_held", "Sessions without a connection, held for resume."),
		queued:        desc("signal_queued_bytes", "Bytes in the queues of all sessions."),
		messages:      desc("signal_messages_total", "Messages from clients, by kind.", "kind"),
		delivered:     desc("signal_delivered_total", "Signals and broadcasts, by way: local to a peer of this node, remote to another node, received from one.", "way"),
		undeliverable: desc("signal_undeliverable_total", "Signals that came back to their sender, by reason.", "reason"),
		errors:        desc("signal_errors_total", "Errors told to clients, by code.", "code"),
		drops:         desc("signal_dropped_total", "Messages dropped, by reason.", "reason"),
		closed:        desc("signal_closed_total", "Connections closed by this side, by close code.", "code"),
		resumed:       desc("signal_resumed_total", "Sessions resumed, by how.", "how"),

		protoConnections: desc("signal_protocol_connections", "Open WebSocket connections, by protocol.", "protocol"),
		protoAccepted:    desc("signal_protocol_connections_total", "WebSocket connections ever opened, by protocol.", "protocol"),
		protoMessages:    desc("signal_protocol_messages_total", "Messages from clients, by protocol.", "protocol"),
		protoIgnored:     desc("signal_protocol_ignored_total", "Messages that were not understood and passed over, by protocol.", "protocol"),
		protoRefused:     desc("signal_protocol_refused_total", "Clients turned away and messages not handled, by protocol and reason.", "protocol", "reason"),
	}
}

func (c signalCollector) Describe(ch chan<- *prometheus.Desc) {
	d := c.descs()
	for _, one := range []*prometheus.Desc{d.connections, d.accepted, d.rooms, d.sessions, d.held, d.queued, d.messages, d.delivered, d.undeliverable, d.errors, d.drops, d.closed, d.resumed,
		d.protoConnections, d.protoAccepted, d.protoMessages, d.protoIgnored, d.protoRefused} {
		ch <- one
	}
}

func (c signalCollector) Collect(ch chan<- prometheus.Metric) {
	d, s, to := c.descs(), c(), sink(ch)
	to.gauge(d.connections, float64(s.Connections))
	to.gauge(d.rooms, float64(s.Rooms))
	to.gauge(d.sessions, float64(s.Sessions))
	to.gauge(d.held, float64(s.Held))
	to.gauge(d.queued, float64(s.QueuedBytes))
	to.counter(d.accepted, s.Accepted)
	to.counters(d.messages, s.Messages)
	to.counter(d.delivered, s.Local, "local")
	to.counter(d.delivered, s.Remote, "remote")
	to.counter(d.delivered, s.Received, "received")
	to.counters(d.undeliverable, s.Undeliverable)
	to.counters(d.errors, s.Errors)
	to.counters(d.drops, s.Drops)
	to.counters(d.resumed, s.Resumed)
	for code, n := range s.Closed {
		to.counter(d.closed, n, strconv.Itoa(code))
	}
	for name, p := range s.Protocols {
		to.gauge(d.protoConnections, float64(p.Connections), name)
		to.counter(d.protoAccepted, p.Accepted, name)
		to.counter(d.protoMessages, p.Messages, name)
		to.counter(d.protoIgnored, p.Ignored, name)
		for reason, n := range p.Refused {
			to.counter(d.protoRefused, n, name, reason)
		}
	}
}
