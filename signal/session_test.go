package signal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"callbox/bus"

	"github.com/coder/websocket"
)

func TestAResumedSessionMissesNothingAndSeesNothingTwice(t *testing.T) {
	for _, other := range []int{0, 1} {
		t.Run([]string{"same node", "another node"}[other], func(t *testing.T) {
			c := newCluster(t, 2, Limits{})
			ada := connect(t, c.nodes[0], "user=ada")
			bob := connect(t, c.nodes[0], "user=bob")
			eve := connect(t, c.nodes[1], "user=eve")
			ada.join("tea")
			bob.join("tea")
			eve.join("tea")
			ada.await("peer-joined")
			ada.await("peer-joined")
			bob.await("peer-joined")
			bob.send(`{"type":"signal","to":"` + ada.peer + `","data":1}`)
			ada.expect("signal")
			ada.drop()
			eventually(t, "held", func() bool { return c.nodes[0].hub.Stats().Held == 1 })
			bob.send(`{"type":"signal","to":"` + ada.peer + `","data":2}`)
			bob.send(`{"type":"broadcast","room":"tea","data":3}`)
			eve.send(`{"type":"signal","to":"` + ada.peer + `","data":4}`)
			eve.await("broadcast")
			eve.quiet()
			eventually(t, "all are queued", func() bool { return queued(c.nodes[0].hub, ada.peer) >= 3 })

			back := ada.resume(c.nodes[other], "user=ada")
			if !back.hello.Resumed || back.peer != ada.peer || back.hello.Seq != 0 {
				t.Fatalf("%s", back.hello.raw)
			}
			got := map[string]int{}
			for range 3 {
				got[string(back.next().Data)]++
			}
			if fmt.Sprint(got) != "map[2:1 3:1 4:1]" {
				t.Fatal(got)
			}
			back.quiet()
			bob.quiet() // no presence for a resume
			eve.quiet()
			bob.send(`{"type":"signal","to":"` + ada.peer + `","data":5}`)
			if m := back.expect("signal"); string(m.Data) != "5" {
				t.Fatalf("%s", m.raw)
			}
			back.send(`{"type":"signal","to":"` + eve.peer + `","data":6}`)
			if m := eve.expect("signal"); string(m.Data) != "6" || m.from() != ada.peer {
				t.Fatalf("%s", m.raw)
			}
		})
	}
}

func queued(h *Hub, peer string) int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	s := h.sessions[peer]
	if s == nil {
		return -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

func TestASecondResumeReplacesTheFirstConnection(t *testing.T) {
	for _, other := range []int{0, 1} {
		t.Run([]string{"same node", "another node"}[other], func(t *testing.T) {
			c := newCluster(t, 2, Limits{})
			a := connect(t, c.nodes[0], "user=a")
			b := a.resume(c.nodes[other], "user=a")
			if !b.hello.Resumed {
				t.Fatalf("%s", b.hello.raw)
			}
			if code := a.closed(); code != 4002 {
				t.Fatal(code, a.err)
			}
			b.quiet()
		})
	}
}

func TestAResumeByAnotherUserBeginsAnew(t *testing.T) {
	for _, query := range []string{"user=mallory", "user=a&login=1", "user=a&room=r"} {
		for _, other := range []int{0, 1} {
			c := newCluster(t, 2, Limits{})
			a := connect(t, c.nodes[0], "user=a")
			b := connect(t, c.nodes[0], "user=b")
			b.join("tea")
			a.join("tea")
			b.expect("peer-joined")
			a.drop()
			m := a.resume(c.nodes[other], query)
			if m.hello.Resumed || m.hello.Seq != 1 {
				t.Fatalf("%s: %s", query, m.hello.raw)
			}
			if l := b.expect("peer-left"); l.peerID() != a.peer || l.Reason != "gone" {
				t.Fatalf("%s", l.raw)
			}
		}
	}
}

func TestAHeldSessionEndsAfterItsWindow(t *testing.T) {
	c := newCluster(t, 2, Limits{ResumeWindow: 300 * time.Millisecond})
	a := connect(t, c.nodes[0], "user=a")
	b := connect(t, c.nodes[1], "user=b")
	b.join("tea")
	a.join("tea")
	b.expect("peer-joined")
	start := time.Now()
	a.drop()
	if m := b.expect("peer-left"); m.Reason != "gone" || m.peerID() != a.peer {
		t.Fatalf("%s", m.raw)
	}
	if d := time.Since(start); d < 300*time.Millisecond {
		t.Fatal("told after", d)
	}
	n := a.resume(c.nodes[0], "user=a")
	if n.hello.Resumed || n.peer != a.peer {
		t.Fatalf("%s", n.hello.raw)
	}
	if m := n.join("tea"); len(m.Peers) != 2 {
		t.Fatalf("%s", m.raw)
	}
}

func TestByeEndsTheSessionAtOnce(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	b := connect(t, c.nodes[1], "user=b")
	b.join("tea")
	for _, how := range []string{"bye", "close 1000"} {
		a := connect(t, c.nodes[0], "user=a")
		a.join("tea")
		b.expect("peer-joined")
		if how == "bye" {
			a.send(`{"type":"bye"}`)
			if code := a.closed(); code != 1000 {
				t.Fatal(code)
			}
		} else if err := a.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Fatal(err)
		}
		if m := b.expect("peer-left"); m.Reason != "left" {
			t.Fatalf("%s: %s", how, m.raw)
		}
	}
}

func TestExpiredAndRevokedSessionsCloseWith4001(t *testing.T) {
	c := newCluster(t, 1, Limits{GapTimeout: 200 * time.Millisecond})
	h := c.nodes[0].hub
	a := connect(t, c.nodes[0], "user=a&expires=300")
	if code := a.closed(); code != 4001 {
		t.Fatal(code)
	}
	b := connect(t, c.nodes[0], "user=b&session=s1")
	held := connect(t, c.nodes[0], "user=b&session=s1")
	held.drop()
	d := connect(t, c.nodes[0], "user=b&session=s2")
	silent := dial(t, c.nodes[0], "user=b&session=s1")
	go silent.read()
	eventually(t, "all are there", func() bool { s := h.Stats(); return s.Held == 1 && s.Connections == 3 })
	if n := h.Revoke(func(id Identity) bool { return id.Session == "s1" }); n != 3 {
		t.Fatal(n)
	}
	if code := b.closed(); code != 4001 {
		t.Fatal(code)
	}
	if code := silent.closed(); code != 4001 {
		t.Fatal(code)
	}
	d.quiet()
	if s := h.Stats(); s.Sessions != 1 || s.Held != 0 {
		t.Fatalf("%+v", s)
	}
	if m := held.resume(c.nodes[0], "user=b&session=s3"); m.hello.Resumed {
		t.Fatalf("%s", m.hello.raw)
	}
}

func TestAConnectionRevokedWhileItCameInIsClosed(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	d := dial(t, c.nodes[0], "user=a&login=1&revoked=1")
	d.send(`{"type":"hello"}`)
	go d.read()
	if code := d.closed(); code != 4001 {
		t.Fatal(code)
	}
	if n := c.nodes[0].hub.Stats().Sessions; n != 0 {
		t.Fatalf("%d sessions", n)
	}
}

func TestASlowReaderIsClosedWith4003AndResumes(t *testing.T) {
	c := newCluster(t, 1, Limits{QueueBytes: 64 << 10, MessageRate: 100_000, MessageBytes: 1 << 30})
	a := connect(t, c.nodes[0], "user=a")
	b := connect(t, c.nodes[0], "user=b")
	a.join("tea")
	b.join("tea")
	a.expect("peer-joined")
	a.mu.Lock()
	a.noAck = true // reads, but does not acknowledge
	last := a.seq
	a.mu.Unlock()
	data := strings.Repeat("x", 1000)
	sent := 0
	for busy := false; !busy; sent++ {
		b.send(fmt.Sprintf(`{"type":"signal","to":%q,"data":[%d,%q]}`, a.peer, sent, data))
		b.send(`{"type":"ping"}`)
		m := b.next()
		if m.Type == "undeliverable" {
			if m.Reason != "busy" {
				t.Fatalf("%s", m.raw)
			}
			busy = true
			sent--
			b.expect("pong")
		}
	}
	if code := a.closed(); code != 4003 {
		t.Fatal(code, a.err)
	}
	a.seq = last // what it has not acknowledged it may get again
	n := a.resume(c.nodes[0], "user=a")
	if !n.hello.Resumed {
		t.Fatalf("%s", n.hello.raw)
	}
	// Until it has handled what it came back to, it is no slow reader: it gets all of that, whatever else there is for it.
	b.send(fmt.Sprintf(`{"type":"signal","to":%q,"data":%q}`, a.peer, data))
	if m := b.expect("undeliverable"); m.Reason != "busy" {
		t.Fatalf("%s", m.raw)
	}
	for i := range sent {
		if m := n.expect("signal"); !strings.HasPrefix(string(m.Data), fmt.Sprintf("[%d,", i)) {
			t.Fatalf("%d: %.60s", i, m.raw)
		}
	}
	n.send(fmt.Sprintf(`{"type":"ack","seq":%d}`, n.seq))
	n.quiet()
}

func TestAClientThatStopsReadingIsClosedAndDoesNotHinderOthers(t *testing.T) {
	c := newCluster(t, 1, Limits{MessageRate: 100_000, MessageBytes: 1 << 30, CloseLinger: 300 * time.Millisecond})
	a := dial(t, c.nodes[0], "user=a") // nobody reads but this test
	a.send(`{"type":"hello"}`)
	a.send(`{"type":"join","room":"tea"}`)
	b := connect(t, c.nodes[0], "user=b")
	eventually(t, "both are there", func() bool { return len(b.join("tea").Peers) == 2 })
	d := connect(t, c.nodes[0], "user=d")
	d.join("tea")
	data := strings.Repeat("x", 200<<10)
	for i := 0; i < 200 && c.nodes[0].hub.Stats().Sessions > 2; i++ {
		b.send(fmt.Sprintf(`{"type":"broadcast","room":"tea","data":%q}`, data))
		if m := d.await("broadcast"); len(m.Data) != len(data)+2 {
			t.Fatal(len(m.Data))
		}
	}
	eventually(t, "the session that could not be served ends", func() bool { return c.nodes[0].hub.Stats().Sessions == 2 })
	if c.nodes[0].hub.Stats().Closed[4003] != 1 {
		t.Fatal(c.nodes[0].hub.Stats().Closed)
	}
}

func TestClientNumbersAreHandledOnceAndAcknowledged(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	a := connect(t, c.nodes[0], "user=a")
	b := connect(t, c.nodes[0], "user=b")
	b.join("tea")
	a.send(`{"type":"join","room":"tea","seq":1}`)
	a.await("joined")
	b.expect("peer-joined")
	for i := 2; i <= 17; i++ {
		a.send(fmt.Sprintf(`{"type":"signal","to":%q,"data":%d,"seq":%d}`, b.peer, i, i))
	}
	for m := range a.in {
		if m.Type == "ack" {
			if m.Seq != 16 {
				t.Fatalf("%s", m.raw)
			}
			break
		}
	}
	a.drop()
	n := a.resume(c.nodes[1], "user=a")
	if n.hello.Received != 17 {
		t.Fatalf("%s", n.hello.raw)
	}
	for i := 12; i <= 20; i++ { // again from 12: what was received is dropped
		n.send(fmt.Sprintf(`{"type":"signal","to":%q,"data":%d,"seq":%d}`, b.peer, i, i))
	}
	n.send(`{"type":"ping"}`)
	if m := n.expect("pong"); m.Received != 20 {
		t.Fatalf("%s", m.raw)
	}
	for i := 2; i <= 20; i++ {
		if m := b.expect("signal"); string(m.Data) != fmt.Sprint(i) {
			t.Fatalf("want %d, got %s", i, m.raw)
		}
	}
	b.quiet()
}

func TestASilentConnectionIsPingedThenDropped(t *testing.T) {
	c := newCluster(t, 1, Limits{PingAfter: 300 * time.Millisecond, PingTimeout: 300 * time.Millisecond, GapTimeout: 200 * time.Millisecond})
	h := c.nodes[0].hub
	lively := connect(t, c.nodes[0], "user=a") // its reader answers pings
	dead := dial(t, c.nodes[0], "user=b")
	dead.send(`{"type":"hello"}`)
	eventually(t, "the silent one is held", func() bool { return h.Stats().Held == 1 })
	lively.quiet()
	if s := h.Stats(); s.Connections != 1 || s.Sessions != 2 {
		t.Fatalf("%+v", s)
	}
}

func TestPingsBeyondTheRateAreNotAnswered(t *testing.T) {
	c := newCluster(t, 1, Limits{MessageRate: 5})
	a := connect(t, c.nodes[0], "user=a")
	for range 7 {
		if err := a.ws.Ping(ctx10(t)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	answered := 0
	for range 20 {
		if a.ws.Ping(ctx) != nil {
			break
		}
		answered++
	}
	if answered >= 20 {
		t.Fatal("a flood of pings was answered")
	}
}

// TestAHelloThatIsRefusedLeavesNothing: neither a session nor queued bytes nor a claim.
func TestAHelloThatIsRefusedLeavesNothing(t *testing.T) {
	c := newCluster(t, 1, Limits{Connections: 2})
	n := c.nodes[0]
	for range 5 {
		connect(t, n, "user=a").drop()
	}
	h := n.hub
	state := func() (sessions, arriving int, queued int64) {
		h.mu.RLock()
		defer h.mu.RUnlock()
		return len(h.sessions), len(h.arriving), h.queued.Load()
	}
	eventually(t, "the connections end", func() bool { return h.Stats().Connections == 0 })
	sessions, arriving, queued := state()
	sec := newSecrets()
	for _, hello := range []string{`{"type":"hello"}`, fmt.Sprintf(`{"type":"hello","resume":{"token":%q,"seq":0}}`, sec.token)} {
		d := dial(t, n, "user=b")
		go d.read()
		d.send(hello)
		if code := d.closed(); code != websocket.StatusTryAgainLater {
			t.Fatal(code)
		}
		if s, a, q := state(); s != sessions || a != arriving || q != queued {
			t.Fatalf("%s: %d sessions, %d arriving, %d bytes; before %d, %d, %d", hello, s, a, q, sessions, arriving, queued)
		}
	}
	eventually(t, "the peer id is free", func() bool {
		_, _, err := n.bus.Locate(t.Context(), sec.peer, 0)
		return errors.Is(err, bus.ErrNotFound)
	})
}

func TestQueuesAndHeldSessionsAreBoundedForTheWholeNode(t *testing.T) {
	c := newCluster(t, 1, Limits{QueueTotal: 100 << 10, Connections: 4})
	n := c.nodes[0]
	a := connect(t, n, "user=a")
	held := connect(t, n, "user=held")
	a.join("tea")
	held.join("tea")
	a.expect("peer-joined")
	held.drop()
	data := strings.Repeat("x", 30<<10)
	for i := 0; ; i++ {
		a.send(fmt.Sprintf(`{"type":"signal","to":%q,"data":%q}`, held.peer, data))
		a.send(`{"type":"ping"}`)
		if m := a.next(); m.Type == "undeliverable" {
			if m.Reason != "busy" || i < 3 {
				t.Fatalf("message %d: %s", i, m.raw)
			}
			break
		}
		if i > 10 {
			t.Fatal("no bound")
		}
	}
	back := held.resume(n, "user=held")
	for range 4 {
		back.expect("signal")
	}
	eventually(t, "acknowledged bytes are free again", func() bool { return n.hub.Stats().QueuedBytes == 0 && n.hub.queued.Load() == 0 })
	for range 7 {
		connect(t, n, "user=b").drop()
	}
	d := dial(t, n, "user=b")
	go d.read()
	d.send(`{"type":"hello"}`)
	if code := d.closed(); code != websocket.StatusTryAgainLater {
		t.Fatal(code)
	}
}

func TestUserHoldsSoManyConnectionsAndNoMore(t *testing.T) {
	c := newCluster(t, 1, Limits{ConnectionsPerUser: 2})
	n := c.nodes[0]
	a := connect(t, n, "user=ada&login=1")
	connect(t, n, "user=ada&login=1")
	_, resp, err := websocket.Dial(ctx10(t), n.url("user=ada&login=1"), &websocket.DialOptions{Subprotocols: []string{Subprotocol}})
	if err == nil || resp == nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("the third: %v, %v", resp, err)
	}
	// Others, and those with a token for the same name, are not concerned.
	connect(t, n, "user=bob&login=1")
	for range 3 {
		connect(t, n, "user=ada")
	}
	a.send(`{"type":"bye"}`)
	a.closed()
	eventually(t, "the place is free", func() bool {
		ws, _, err := websocket.Dial(ctx10(t), n.url("user=ada&login=1"), &websocket.DialOptions{Subprotocols: []string{Subprotocol}})
		if err != nil {
			return false
		}
		_ = ws.CloseNow()
		return true
	})
	eventually(t, "everything is counted out", func() bool {
		n.hub.mu.RLock()
		defer n.hub.mu.RUnlock()
		return n.hub.holds["ada"] == 1
	})
}
