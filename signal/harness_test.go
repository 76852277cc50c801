package signal

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"callbox/bus"
	"callbox/bus/memory"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is several nodes in one process: real WebSockets, bus/memory between them.
type cluster struct {
	t     *testing.T
	net   *memory.Network
	nodes []*node
	watch func(RoomEvent)
	wrap  func(*memory.Bus) Bus // nil: hubs use the bus as it is
}

// node is one hub with its bus and its HTTP server.
type node struct {
	net  *memory.Network
	bus  *memory.Bus
	hub  *Hub
	http *httptest.Server
	gone bool
}

// handler gives the hub its events from the bus.
type handler struct{ *Hub }

func (handler) Changed(string, string) {}

func newCluster(t *testing.T, nodes int, limits Limits) *cluster {
	t.Helper()
	c := &cluster{t: t, net: memory.NewNetwork()}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
		}
	})
	for range nodes {
		c.add(limits)
	}
	return c
}

func (c *cluster) add(limits Limits) *node {
	c.t.Helper()
	b, err := c.net.Open(memory.Config{Name: "n" + strconv.Itoa(len(c.nodes)+1)})
	if err != nil {
		c.t.Fatal(err)
	}
	var seen Bus = b
	if c.wrap != nil {
		seen = c.wrap(b)
	}
	n := &node{net: c.net, bus: b, hub: New(Config{Bus: seen, Limits: limits, Watch: c.watch})}
	if err := b.Start(handler{n.hub}); err != nil {
		c.t.Fatal(err)
	}
	n.http = httptest.NewServer(http.HandlerFunc(n.serve))
	c.nodes = append(c.nodes, n)
	return n
}

// serve takes the identity from the query: a test is any user it likes.
func (n *node) serve(w http.ResponseWriter, r *http.Request) {
	for prefix, serve := range map[string]http.HandlerFunc{
		"/peerjs/": n.servePeerJS, "/ayame/": n.serveAyame, "/y-webrtc": n.serveYWebRTC, "/matchbox/": n.serveMatchbox,
	} {
		if strings.HasPrefix(r.URL.Path, prefix) {
			serve(w, r)
			return
		}
	}
	n.hub.Serve(w, r, identityOf(r.URL.Query()))
}

func identityOf(q url.Values) Identity {
	id := Identity{User: q.Get("user"), Name: q.Get("name"), Room: q.Get("room"), Login: q.Get("login") != "", Session: q.Get("session")}
	if ms, err := strconv.Atoi(q.Get("expires")); err == nil {
		id.Expires = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	if q.Get("revoked") != "" {
		id.Still = func() bool { return false }
	}
	if q.Get("ice") != "" {
		id.ICE = func(room string) (ICE, error) {
			return ICE{
				Servers:    []ICEServer{{URLs: []string{"stun:192.0.2.1:8080"}}, {URLs: []string{"turn:192.0.2.1:8080?transport=udp&room=" + room}, Username: "u", Credential: "c"}},
				TTLSeconds: 3600, ExpiresAt: time.Date(2026, 1, 1, 13, 0, 0, 0, time.UTC),
			}, nil
		}
	}
	return id
}

func (n *node) url(q string) string {
	return "ws" + strings.TrimPrefix(n.http.URL, "http") + "/ws?" + q
}

// stop ends a node in order.
func (n *node) stop() {
	if n.gone {
		return
	}
	n.gone = true
	_ = n.hub.Close()
	n.http.Close()
	_ = n.bus.Close()
}

// kill ends a node without a goodbye.
func (n *node) kill() {
	n.gone = true
	n.net.Kill(n.bus.Self())
	n.http.CloseClientConnections()
	n.hub.eachConn(func(c *conn) { _ = c.Conn.Close() })
	_ = n.hub.Close()
	n.http.Close()
	_ = n.bus.Close()
}

// eventually polls until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatal("never: " + what)
		case <-tick.C:
		}
	}
}

var _ bus.Handler = handler{}
