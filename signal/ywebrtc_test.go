package signal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (n *node) serveYWebRTC(w http.ResponseWriter, r *http.Request) {
	n.hub.ServeYWebRTC(w, r, Identity{User: "u", Room: r.URL.Query().Get("room"), Session: "key"})
}

func dialY(t testing.TB, n *node, query string) *adapted {
	return dialAdapted(t, n, "/y-webrtc?"+query)
}

// sync waits until all that was said before has been done.
func (a *adapted) sync() {
	a.t.Helper()
	a.send(`{"type":"ping"}`)
	a.expect(`{"type":"pong"}`)
}

func TestYWebRTCPublicationsReachAllSubscribers(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, Limits{})
			long := strings.Repeat("x", 600)
			a, b, d := dialY(t, c.nodes[0], ""), dialY(t, c.nodes[nodes-1], ""), dialY(t, c.nodes[nodes/2], "")
			for _, x := range []*adapted{a, b} {
				x.send(`{"type":"subscribe","topics":["doc","` + long + `",7,""]}`)
				x.sync()
			}
			eventually(t, "all know of both", func() bool {
				for _, n := range []*node{c.nodes[0], c.nodes[nodes-1]} {
					n.hub.mu.RLock()
					r := n.hub.rooms[ywebrtcSpace+"doc"]
					l := n.hub.rooms[topicRoom(long)]
					ok := r != nil && len(r.members) == 2 && l != nil && len(l.members) == 2
					n.hub.mu.RUnlock()
					if !ok {
						return false
					}
				}
				return true
			})
			a.send(` { "type":"publish", "topic":"doc","clients":99,"data":{"x":[1, "é"]},"clients":98 } `)
			for _, x := range []*adapted{a, b} {
				x.expect(`{"type":"publish","topic":"doc","clients":2,"data":{"x":[1, "é"]}}`)
			}
			d.send(`{"type":"publish","topic":"doc","data":"from outside"}`)
			for _, x := range []*adapted{a, b} {
				x.expect(`{"type":"publish","topic":"doc","data":"from outside","clients":2}`)
			}
			b.send(`{"type":"publish","topic":"` + long + `"}`)
			for _, x := range []*adapted{a, b} {
				x.expect(`{"type":"publish","topic":"` + long + `","clients":2}`)
			}
			d.sync() // and has heard nothing else
			for _, s := range []string{`x`, `{}`, `{"type":"publish"}`, `{"type":"publish","topic":7}`, `{"type":"subscribe"}`, `{"type":"other"}`} {
				d.send(s)
			}
			d.sync()
			b.send(`{"type":"unsubscribe","topics":["doc","never"]}`)
			b.sync()
			eventually(t, "one is left", func() bool {
				c.nodes[0].hub.mu.RLock()
				defer c.nodes[0].hub.mu.RUnlock()
				return len(c.nodes[0].hub.rooms[ywebrtcSpace+"doc"].members) == 1
			})
			a.send(`{"type":"publish","topic":"doc","data":2}`)
			a.expect(`{"type":"publish","topic":"doc","data":2,"clients":1}`)
			_ = b.ws.CloseNow()
			eventually(t, "a lost socket subscribes to nothing", func() bool {
				r, err := c.nodes[0].bus.Room(t.Context(), topicRoom(long))
				return err == nil && len(r.Members) == 1
			})
		})
	}
}

func TestWhoSubscribesAgainHearsAtOnce(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, Limits{GapTimeout: time.Hour})
			a, b := dialY(t, c.nodes[0], ""), dialY(t, c.nodes[nodes-1], "")
			subscribe := func(x *adapted, kind string, now int) {
				x.send(`{"type":"` + kind + `","topics":["doc"]}`)
				x.sync()
				eventually(t, "all know of it", func() bool {
					h := c.nodes[nodes-1].hub
					h.mu.RLock()
					defer h.mu.RUnlock()
					r := h.rooms[topicRoom("doc")]
					return r == nil && now == 1 || r != nil && len(r.members) == now
				})
			}
			subscribe(a, "subscribe", 1)
			subscribe(b, "subscribe", 2)
			for i, kind := range []string{"", "unsubscribe", "subscribe"} {
				clients := 2
				if kind == "unsubscribe" {
					clients = 1
				}
				if kind != "" {
					subscribe(a, kind, clients)
				}
				b.send(fmt.Sprintf(`{"type":"publish","topic":"doc","n":%d}`, i))
				heard := fmt.Sprintf(`{"type":"publish","topic":"doc","n":%d,"clients":%d}`, i, clients)
				b.expect(heard)
				if kind != "unsubscribe" {
					a.expect(heard)
				}
			}
		})
	}
}

func TestYWebRTCTokenIsForOneTopic(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a, b := dialY(t, c.nodes[0], "room=tea"), dialY(t, c.nodes[0], "")
	a.send(`{"type":"subscribe","topics":["tea","coffee"]}`)
	a.sync()
	b.send(`{"type":"subscribe","topics":["tea","coffee"]}`)
	b.sync()
	b.send(`{"type":"publish","topic":"coffee","n":1}`)
	b.expect(`{"type":"publish","topic":"coffee","n":1,"clients":1}`)
	a.send(`{"type":"publish","topic":"coffee","n":2}`)
	a.sync()
	b.sync()
	if n := c.nodes[0].hub.Stats().Protocols["y-webrtc"].Refused[refusedToken]; n != 2 {
		t.Errorf("%d refused", n)
	}
}

func TestYWebRTCTopicsAreBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{RoomsPerPeer: 3})
	a := dialY(t, c.nodes[0], "")
	a.send(`{"type":"subscribe","topics":["1","2","3","4","5","1"]}`)
	a.sync()
	if s := c.nodes[0].hub.Stats(); s.Rooms != 3 || s.Protocols["y-webrtc"].Refused[refusedFull] != 2 {
		t.Errorf("%d topics, %v", s.Rooms, s.Protocols["y-webrtc"])
	}
}

func FuzzDecodeYWebRTC(f *testing.F) {
	for _, s := range []string{`{"type":"subscribe","topics":["a",1]}`, `{"type":"publish","topic":"t","clients":1,"x":{}}`, `{"type":"ping"}`, `{"type":"publish","topic":"t"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := decodeYWebRTC(b)
		if !ok {
			return
		}
		var before, after map[string]any
		if json.Unmarshal(b, &before) != nil {
			t.Fatalf("taken though it is no JSON object: %q", b)
		}
		if m.typ != "publish" {
			return
		}
		out := withClients(nil, b, 7)
		if json.Unmarshal(out, &after) != nil || after["clients"] != 7.0 {
			t.Fatalf("%q became %q", b, out)
		}
		delete(before, "clients")
		delete(after, "clients")
		x, _ := json.Marshal(before)
		y, _ := json.Marshal(after)
		if string(x) != string(y) {
			t.Fatalf("%q became %q", b, out)
		}
	})
}
