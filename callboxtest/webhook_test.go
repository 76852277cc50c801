package callboxtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"callbox/callboxtest"
	"callbox/signal/client"
)

// told is what a receiver of webhooks has been told.
type told struct {
	*httptest.Server
	mu     sync.Mutex
	events []string // guarded by mu
	nodes  []string // guarded by mu: who told
	keys   []string // guarded by mu: who signed
}

func receiver(t *testing.T) *told {
	t.Helper()
	r := &told{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var e struct {
			Event, Room, Node, Reason string
			Peer                      struct{ User string }
		}
		if err != nil || json.Unmarshal(body, &e) != nil {
			t.Errorf("webhook: %s, %v", body, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, fmt.Sprintf("%s %s %s %s", e.Event, e.Room, e.Peer.User, e.Reason))
		r.nodes = append(r.nodes, e.Node)
		r.keys = append(r.keys, req.Header.Get("Callbox-Key"))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *told) await(t *testing.T, want ...string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		got := slices.Clone(r.events)
		r.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		if len(got) > len(want) || time.Now().After(deadline) {
			t.Fatalf("told %q, want %q", got, want)
		}
		<-tick.C
	}
}

func TestWebhooksTellOfRoomsOnceInACluster(t *testing.T) {
	r := receiver(t)
	c := callboxtest.StartCluster(t, 2, callboxtest.WithFlag("webhook", r.URL+"/hook"))
	a := join(t, c.Nodes[0].Client("tea", "ada"), "tea")
	b := join(t, c.Nodes[1].Client("tea", "bob"), "tea")
	meet(t, a, b)
	want := []string{"room.started tea  ", "peer.joined tea ada ", "peer.joined tea bob "}
	r.await(t, want...)
	if err := a.Leave(t.Context(), "tea"); err != nil {
		t.Fatal(err)
	}
	want = append(want, "peer.left tea ada left")
	r.await(t, want...)
	for _, p := range []*client.Client{a, b} {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	r.await(t, append(want, "peer.left tea bob left", "room.ended tea  ")...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nodes[0] != "node1" || r.nodes[2] != "node2" || r.keys[0] == "" {
		t.Errorf("told by %q, signed with %q", r.nodes, r.keys)
	}
}
