package signal

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"callbox/bus"
	"callbox/bus/memory"
)

func TestPeerJSMessagesWaitForAPeerThatIsNotThere(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, Limits{})
			a := peerJS(t, c.nodes[0], "a", "1")
			for i := range 5 {
				a.send(fmt.Sprintf(`{"type":"CANDIDATE","dst":"b","payload":%d}`, i))
			}
			eventually(t, "they wait", func() bool {
				c.nodes[0].hub.mu.RLock()
				defer c.nodes[0].hub.mu.RUnlock()
				w := c.nodes[0].hub.waiting[peerjsSpace+"/b"]
				return w != nil && len(w.packets) == 5 && !w.asking
			})
			b := peerJS(t, c.nodes[nodes-1], "b", "2")
			for i := range 5 {
				b.expect(fmt.Sprintf(`{"type":"CANDIDATE","src":"a","dst":"b","payload":%d}`, i))
			}
			// From now on nothing waits.
			a.send(`{"type":"OFFER","dst":"b","payload":"now"}`)
			b.expect(`{"type":"OFFER","src":"a","dst":"b","payload":"now"}`)
			eventually(t, "nothing is kept", func() bool {
				h := c.nodes[0].hub
				h.mu.RLock()
				defer h.mu.RUnlock()
				return len(h.waiting) == 0 && h.waitingCount == 0 && h.waitingBytes == 0
			})
		})
	}
}

func TestPeerJSExpiresOnceForEachPair(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Limits{})
	a, b := peerJS(t, c.nodes[0], "a", "1"), peerJS(t, c.nodes[1], "b", "2")
	begun := time.Now()
	a.send(`{"type":"LEAVE","dst":"gone"}`) // nobody is told of its loss
	for _, kind := range []string{"OFFER", "CANDIDATE", "CANDIDATE"} {
		a.send(`{"type":"` + kind + `","dst":"nobody","payload":1}`)
		b.send(`{"type":"` + kind + `","dst":"nobody","payload":1}`)
	}
	a.expect(`{"type":"EXPIRE","src":"nobody","dst":"a"}`)
	if waited := time.Since(begun); waited < waitFor {
		t.Errorf("expired after %v", waited)
	}
	b.expect(`{"type":"EXPIRE","src":"nobody","dst":"b"}`)
	a.send(`{"type":"OFFER","dst":"b","payload":1}`)
	b.expect(`{"type":"OFFER","src":"a","dst":"b","payload":1}`)
	b.send(`{"type":"ANSWER","dst":"a","payload":1}`)
	a.expect(`{"type":"ANSWER","src":"b","dst":"a","payload":1}`)
}

// The directory tells of whoever registers for five seconds after it was asked: for a message that began to wait later it has to
// be asked again.
func TestPeerJSMessagesOfALaterSenderWaitTheirFullTime(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Limits{})
	a, b := peerJS(t, c.nodes[0], "a", "1"), peerJS(t, c.nodes[0], "b", "1")
	a.send(`{"type":"OFFER","dst":"x","payload":1}`)
	h := c.nodes[0].hub
	eventually(t, "the first is nearly over", func() bool {
		h.mu.RLock()
		defer h.mu.RUnlock()
		w := h.waiting[peerjsSpace+"/x"]
		return w != nil && time.Until(w.until[peerjsSpace+"/a"]) < waitFor/4
	})
	b.send(`{"type":"OFFER","dst":"x","payload":2}`)
	a.expect(`{"type":"EXPIRE","src":"x","dst":"a"}`)
	eventually(t, "the directory is asked again", func() bool {
		h.mu.RLock()
		defer h.mu.RUnlock()
		w := h.waiting[peerjsSpace+"/x"]
		return w != nil && !w.asking && !w.again
	})
	x := peerJS(t, c.nodes[1], "x", "2")
	x.expect(`{"type":"OFFER","src":"b","dst":"x","payload":2}`)
}

// staleDirectory says of every name that it is on a node that has just died.
type staleDirectory struct {
	Bus
	asked atomic.Int64
}

func (d *staleDirectory) Locate(context.Context, string, time.Duration) (bus.NodeID, uint64, error) {
	d.asked.Add(1)
	return "n9.dead", 1, nil
}

func TestANodeThatIsDeadForTheBusAloneIsNotTriedWithoutEnd(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 0, Limits{})
	stale := &staleDirectory{}
	c.wrap = func(b *memory.Bus) Bus {
		stale.Bus = b
		return stale
	}
	a := peerJS(t, c.add(Limits{}), "a", "1")
	a.send(`{"type":"OFFER","dst":"b","payload":1}`)
	a.send(`{"type":"LEAVE","dst":"b"}`)
	a.send(`{"type":"CANDIDATE","dst":"b","payload":2}`)
	a.expect(`{"type":"EXPIRE","src":"b","dst":"a"}`)
	if asked := stale.asked.Load(); asked > 20 {
		t.Errorf("the directory was asked %d times", asked)
	}
}

func TestPeerJSMessagesReachWhoComesBackInTheirOrder(t *testing.T) {
	t.Parallel()
	for place := range 3 {
		t.Run(fmt.Sprint("on node ", place+1), func(t *testing.T) {
			c := newCluster(t, 3, Limits{})
			b := peerJS(t, c.nodes[0], "b", "2")
			a := peerJS(t, c.nodes[1], "a", "1")
			b.send(`{"type":"OFFER","dst":"a","payload":"before"}`)
			a.expect(`{"type":"OFFER","src":"b","dst":"a","payload":"before"}`)
			_ = a.ws.CloseNow()
			eventually(t, "it is gone", func() bool { return c.nodes[1].hub.Connections() == 0 })
			const count = 50
			for i := range count { // the first ones go to where it was
				b.send(fmt.Sprintf(`{"type":"CANDIDATE","dst":"a","payload":%d}`, i))
			}
			eventually(t, "they wait in one place", func() bool {
				h := c.nodes[0].hub
				h.mu.RLock()
				defer h.mu.RUnlock()
				w := h.waiting[peerjsSpace+"/a"]
				return w != nil && len(w.packets) == count && !w.asking
			})
			a = peerJS(t, c.nodes[place], "a", "1")
			for i := range count {
				a.expect(fmt.Sprintf(`{"type":"CANDIDATE","src":"b","dst":"a","payload":%d}`, i))
			}
		})
	}
}

func TestPeerJSLeaveDoesNotWaitForAnybody(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, Limits{})
			a := peerJS(t, c.nodes[0], "a", "1")
			a.send(`{"type":"LEAVE","dst":"b"}`)
			a.send(`{"type":"OFFER","dst":"b","payload":1}`)
			a.send(`{"type":"EXPIRE","dst":"b"}`)
			eventually(t, "one waits", func() bool {
				h := c.nodes[0].hub
				h.mu.RLock()
				defer h.mu.RUnlock()
				w := h.waiting[peerjsSpace+"/b"]
				return w != nil && len(w.packets) == 1 && !w.asking
			})
			b := peerJS(t, c.nodes[nodes-1], "b", "2")
			b.expect(`{"type":"OFFER","src":"a","dst":"b","payload":1}`)
			a.send(`{"type":"LEAVE","dst":"b"}`)
			b.expect(`{"type":"LEAVE","src":"a","dst":"b"}`)
		})
	}
}

func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a, b := peerJS(t, c.nodes[0], "a", "1"), peerJS(t, c.nodes[0], "b", "1")
	h := c.nodes[0].hub
	for range waitingPerName + 50 {
		a.send(`{"type":"CANDIDATE","dst":"x","payload":1}`)
	}
	b.send(`{"type":"CANDIDATE","dst":"x","payload":1}`)
	b.expect(`{"type":"EXPIRE","src":"x","dst":"b"}`) // at once: there is no room for it to wait
	eventually(t, "what is too much is dropped", func() bool { return h.Stats().Drops[dropWaiting] == 51 })
	a.expect(`{"type":"EXPIRE","src":"x","dst":"a"}`)
	h.mu.RLock()
	defer h.mu.RUnlock()
	if len(h.waiting) != 0 || h.waitingCount != 0 || h.waitingBytes != 0 {
		t.Errorf("kept: %d names, %d messages, %d bytes", len(h.waiting), h.waitingCount, h.waitingBytes)
	}
}

func TestPeerJSMessagesForWhoMovedAndEndedWait(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(c *cluster, a *adapted){
		"its socket has closed": func(c *cluster, a *adapted) {
			_ = a.ws.CloseNow()
			eventually(t, "it is gone", func() bool { return c.nodes[1].hub.Connections() == 0 })
		},
		"its node is killed": func(c *cluster, _ *adapted) { c.nodes[1].kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, Limits{})
			b, d := peerJS(t, c.nodes[0], "b", "2"), peerJS(t, c.nodes[2], "d", "3")
			a := peerJS(t, c.nodes[0], "a", "1")
			for _, x := range []*adapted{b, d} { // both know it on the first node
				x.send(`{"type":"OFFER","dst":"a","payload":1}`)
				a.next()
			}
			moved := peerJS(t, c.nodes[1], "a", "1") // which remembers for a minute where it has gone
			a.closed()
			end(c, moved)
			const count = 20
			for i := range count {
				for _, x := range []*adapted{b, d} {
					x.send(fmt.Sprintf(`{"type":"CANDIDATE","dst":"a","payload":%d}`, i))
				}
			}
			for _, n := range []*node{c.nodes[0], c.nodes[2]} {
				eventually(t, "all of them wait with their sender", func() bool {
					n.hub.mu.RLock()
					defer n.hub.mu.RUnlock()
					w := n.hub.waiting[peerjsSpace+"/a"]
					return w != nil && len(w.packets) == count
				})
			}
			again := peerJS(t, c.nodes[2], "a", "1")
			next := map[string]int{"b": 0, "d": 0}
			for range 2 * count {
				var m struct {
					Src     string
					Payload int
				}
				if text := again.next(); json.Unmarshal([]byte(text), &m) != nil || m.Payload != next[m.Src] {
					t.Fatalf("%s instead of %v", text, next)
				}
				next[m.Src]++
			}
		})
	}
}
