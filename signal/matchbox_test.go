package signal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
)

func (n *node) serveMatchbox(w http.ResponseWriter, r *http.Request) {
	next, _ := strconv.Atoi(r.URL.Query().Get("next"))
	n.hub.ServeMatchbox(w, r, Identity{User: "u", Session: "key"}, r.URL.Path[len("/matchbox/"):], next)
}

// dialMatchbox connects and returns its id.
func dialMatchbox(t testing.TB, n *node, path string) (*adapted, string) {
	t.Helper()
	a := dialAdapted(t, n, "/matchbox/"+path)
	var m struct{ IdAssigned string }
	if text := a.next(); json.Unmarshal([]byte(text), &m) != nil || len(m.IdAssigned) != 36 {
		t.Fatal(text)
	}
	return a, m.IdAssigned
}

// members waits until a room has so many.
func (c *cluster) members(room string, n int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprint(room, " has ", n), func() bool {
		r, err := c.nodes[0].bus.Room(c.t.Context(), matchboxSpace+room)
		return err == nil && len(r.Members) == n
	})
}

func TestMatchboxRoom(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, Limits{})
			a, idA := dialMatchbox(t, c.nodes[0], "tea")
			c.members("tea", 1)
			b, idB := dialMatchbox(t, c.nodes[nodes-1], "tea")
			a.expect(`{"NewPeer":"` + idB + `"}`)
			other, _ := dialMatchbox(t, c.nodes[0], "coffee")
			a.send(`{"Signal":{"receiver":"` + idB + `","data":{"Offer":"v=0\r\né"}}}`)
			b.expect(`{"Signal":{"sender":"` + idA + `","data":{"Offer":"v=0\r\né"}}}`) // and no NewPeer before it
			b.send(`{"Signal":{"data":{"Answer":"x"},"receiver":"` + idA + `"}}`)
			a.expect(`{"Signal":{"sender":"` + idB + `","data":{"Answer":"x"}}}`)
			for _, s := range []string{
				`"KeepAlive"`, `x`, `[]`, `{}`, `"Other"`, `{"Signal":{}}`, `{"Signal":7}`, `{"Signal":{"receiver":"` + idB + `"}}`,
				`{"Signal":{"receiver":"00000000-0000-4000-8000-000000000000","data":1}}`,
			} {
				a.send(s)
			}
			other.send(`{"Signal":{"receiver":"` + idB + `","data":"from another room"}}`)
			a.send(`{"Signal":{"receiver":"` + idB + `","data":{"IceCandidate":"c"}}}`)
			b.expect(`{"Signal":{"sender":"` + idA + `","data":{"IceCandidate":"c"}}}`)
			_ = a.ws.CloseNow()
			b.expect(`{"PeerLeft":"` + idA + `"}`)
		})
	}
}

func TestMatchboxGroupsClientsInTheOrderTheyCome(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Limits{})
	group := func(k int) string { return groupsOf("tea", 2) + strconv.Itoa(k) }
	a, _ := dialMatchbox(t, c.nodes[0], "tea?next=2")
	c.members(group(0), 1)
	b, idB := dialMatchbox(t, c.nodes[1], "tea?next=2")
	a.expect(`{"NewPeer":"` + idB + `"}`)
	eventually(t, "every node knows that the first group is complete", func() bool {
		for _, n := range c.nodes {
			n.hub.mu.RLock()
			k := n.hub.groups[matchboxSpace+groupsOf("tea", 2)]
			n.hub.mu.RUnlock()
			if k != 1 {
				return false
			}
		}
		return true
	})
	_ = b.ws.CloseNow()
	a.expect(`{"PeerLeft":"` + idB + `"}`)
	// A group that was complete is not filled up.
	d, _ := dialMatchbox(t, c.nodes[0], "tea?next=2")
	c.members(group(1), 1)
	e, idE := dialMatchbox(t, c.nodes[1], "tea?next=2")
	d.expect(`{"NewPeer":"` + idE + `"}`)
	f, _ := dialMatchbox(t, c.nodes[0], "tea?next=3") // groups of another size are apart
	c.members(groupsOf("tea", 3)+"0", 1)
	_, _ = e, f
}

func TestMatchboxRoomIsFull(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{PeersPerRoom: 2})
	dialMatchbox(t, c.nodes[0], "tea")
	dialMatchbox(t, c.nodes[0], "tea")
	c.members("tea", 2)
	third, _ := dialMatchbox(t, c.nodes[0], "tea")
	if code := third.closed(); code != 1013 {
		t.Errorf("closed with %d", code)
	}
}

func FuzzDecodeMatchbox(f *testing.F) {
	for _, s := range []string{`{"Signal":{"receiver":"r","data":{"Offer":"o"}}}`, `"KeepAlive"`, `{"Signal":null}`, `{"Signal":{"data":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		receiver, data, ok := decodeMatchbox(b)
		if !ok {
			return
		}
		var m struct {
			Signal struct {
				Receiver string
				Data     json.RawMessage
			}
		}
		if json.Unmarshal(b, &m) != nil && !json.Valid(b) {
			t.Fatalf("taken though it is not JSON: %q", b)
		}
		if !json.Valid(data) {
			t.Fatalf("%q to %q out of %q", data, receiver, b)
		}
	})
}
