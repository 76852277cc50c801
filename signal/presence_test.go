package signal

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callbox/bus"

	"github.com/coder/websocket"
)

func TestAKilledNodesPeersLeaveOnlyAfterTheWindow(t *testing.T) {
	c := newCluster(t, 3, Limits{ResumeWindow: time.Second})
	a := connect(t, c.nodes[0], "user=a")
	b := connect(t, c.nodes[1], "user=b")
	d := connect(t, c.nodes[1], "user=d")
	a.join("tea")
	b.join("tea")
	d.join("tea")
	a.expect("peer-joined")
	a.expect("peer-joined")
	start := time.Now()
	c.nodes[1].kill()

	a.send(`{"type":"signal","to":"` + b.peer + `","data":1,"id":"x"}`)
	if m := a.expect("undeliverable"); m.Reason != "gone" || m.ID != "x" || m.To != b.peer {
		t.Fatalf("%s", m.raw)
	}
	// b comes back elsewhere in time: the same peer id, and nobody is told.
	n := b.resume(c.nodes[2], "user=b")
	if n.hello.Resumed || n.peer != b.peer {
		t.Fatalf("%s", n.hello.raw)
	}
	if m := n.join("tea"); len(m.Peers) != 2 {
		t.Fatalf("%s", m.raw) // d's node is gone for the bus
	}
	a.send(`{"type":"signal","to":"` + b.peer + `","data":2}`)
	if m := n.expect("signal"); string(m.Data) != "2" {
		t.Fatalf("%s", m.raw)
	}
	if m := a.expect("peer-left"); m.peerID() != d.peer || m.Reason != "gone" {
		t.Fatalf("%s", m.raw)
	}
	if waited := time.Since(start); waited < time.Second {
		t.Fatal("told after", waited)
	}
	a.quiet()
}

// lossy is a bus that loses the answer to one Join.
type lossy struct {
	Bus
	lose atomic.Bool
}

func (b *lossy) Join(ctx context.Context, room string, m bus.Member, limit int) (bus.Room, error) {
	r, err := b.Bus.Join(ctx, room, m, limit)
	if err == nil && b.lose.Swap(false) {
		return bus.Room{}, context.DeadlineExceeded
	}
	return r, err
}

func TestAJoinWhoseAnswerIsLostLeavesNobodyBehind(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	b := connect(t, c.nodes[0], "user=b")
	b.join("tea")

	n := c.add(Limits{})
	l := &lossy{Bus: n.bus}
	n.hub.bus = l // before anybody is there
	a := connect(t, n, "user=a")
	l.lose.Store(true)
	a.send(`{"type":"join","room":"tea"}`)
	if m := a.expect("error"); m.Code != "busy" {
		t.Fatalf("%s", m.raw)
	}
	eventually(t, "the room is as before", func() bool {
		r, err := c.nodes[0].bus.Room(t.Context(), "tea")
		return err == nil && len(r.Members) == 1
	})
	if m := a.join("tea"); len(m.Peers) != 2 {
		t.Fatalf("%s", m.raw)
	}
}

func TestTheRoomsRelayChangesWithItsNode(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	b := connect(t, c.nodes[1], "user=b")
	if m := b.join("tea"); m.Relay != string(c.nodes[1].bus.Self()) {
		t.Fatalf("%s", m.raw)
	}
	a := connect(t, c.nodes[0], "user=a")
	if m := a.join("tea"); m.Relay != string(c.nodes[1].bus.Self()) {
		t.Fatalf("%s", m.raw)
	}
	c.nodes[1].kill()
	if m := a.expect("room-changed"); m.Relay != string(c.nodes[0].bus.Self()) || m.Room != "tea" {
		t.Fatalf("%s", m.raw)
	}
}

// view follows a room as a client does.
type view map[string]bool

func (v view) apply(m *message) {
	switch m.Type {
	case "joined":
		clear(v)
		for _, p := range m.Peers {
			v[p.Peer] = true
		}
	case "peer-joined":
		v[m.peerID()] = true
	case "peer-left":
		delete(v, m.peerID())
	}
}

func TestEveryonesPictureOfARoomIsTheSameAfterManyJoinAndLeaveAtOnce(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	watchers := make([]*client, 3)
	views := make([]view, 3)
	for i := range watchers {
		watchers[i] = connect(t, c.nodes[i], fmt.Sprint("user=w", i))
		m := watchers[i].join("tea")
		views[i] = view{}
		views[i].apply(&m)
	}
	var wg sync.WaitGroup
	stay := make([]string, 9)
	for i := range 9 {
		wg.Go(func() {
			p := connect(t, c.nodes[i%3], fmt.Sprint("user=p", i))
			for range 5 {
				p.join("tea")
				p.send(`{"type":"leave","room":"tea"}`)
				p.await("left")
			}
			if i%2 == 0 {
				p.join("tea")
				stay[i] = p.peer
			}
		})
	}
	wg.Wait()
	var want []string
	for _, s := range append(stay, watchers[0].peer, watchers[1].peer, watchers[2].peer) {
		if s != "" {
			want = append(want, s)
		}
	}
	slices.Sort(want)
	for i, w := range watchers {
		eventually(t, "the picture is right", func() bool {
			for {
				select {
				case m := <-w.in:
					views[i].apply(&m)
					continue
				default:
				}
				break
			}
			var have []string
			for p := range views[i] {
				have = append(have, p)
			}
			slices.Sort(have)
			return slices.Equal(have, want)
		})
	}
}

func TestACutNodeGoesOnLocallyAndHeals(t *testing.T) {
	c := newCluster(t, 2, Limits{BusTimeout: time.Second})
	n1, n2 := c.nodes[0], c.nodes[1]
	a := connect(t, n1, "user=a")
	a2 := connect(t, n1, "user=a2")
	b := connect(t, n2, "user=b")
	for _, p := range []*client{a, a2, b} {
		p.join("tea")
	}
	a.await("peer-joined")
	a.await("peer-joined")
	a2.await("peer-joined")
	c.net.Cut(n1.bus.Self())
	a.send(`{"type":"signal","to":"` + a2.peer + `","data":1}`)
	a2.expect("signal")
	a.send(`{"type":"join","room":"other","id":"j"}`)
	if m := a.expect("error"); m.Code != "busy" || m.ID != "j" {
		t.Fatalf("%s", m.raw)
	}
	eventually(t, "n1 counts as gone", func() bool { return len(n2.bus.Nodes()) == 1 })
	c.net.Heal(n1.bus.Self())
	eventually(t, "n1 is back", func() bool { return len(n2.bus.Nodes()) == 2 })
	// What was sent while the bus found out may come back; then signals pass again, and
	// nobody was told that anybody had left.
	n, came := 0, 0
	eventually(t, "signals pass again", func() bool {
		n++
		b.send(fmt.Sprintf(`{"type":"signal","to":%q,"data":%d}`, a.peer, n))
		select {
		case m := <-a.in:
			switch m.Type {
			case "signal":
				_ = json.Unmarshal(m.Data, &came)
			case "room-changed": // the relay node was gone for the bus
			default:
				t.Fatalf("%s", m.raw)
			}
		default:
		}
		return came > 0
	})
}

func TestNobodyIsToldToHaveLeftARoomThatTheBusForgot(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	var all []*client
	for i, n := range c.nodes {
		p := connect(t, n, fmt.Sprintf("user=u%d", i))
		p.join("tea")
		for _, other := range all {
			other.await("peer-joined")
		}
		all = append(all, p)
	}
	last := c.nodes[2].hub
	version := func() uint64 {
		last.mu.RLock()
		defer last.mu.RUnlock()
		return last.rooms["tea"].version
	}
	before := version()
	c.net.Forget()
	n := 0
	eventually(t, "everybody is back in the room", func() bool {
		n++
		all[0].send(fmt.Sprintf(`{"type":"broadcast","room":"tea","data":%d}`, n))
		for i, p := range all[1:] {
			if m := p.expect("broadcast"); string(m.Data) != strconv.Itoa(n) {
				t.Fatalf("peer %d: %s instead of broadcast %d", i+1, m.raw, n)
			}
		}
		r, err := c.nodes[0].bus.Room(t.Context(), "tea")
		return err == nil && len(r.Members) == 3 && r.Began > before && version() == r.Version
	})
	for _, p := range all {
		p.quiet()
	}
	// Who does not come back is given up, and who leaves is seen to.
	c.nodes[1].hub.mu.Lock()
	c.nodes[1].hub.rooms["tea"].members[all[0].peer].loseLocked()
	c.nodes[1].hub.mu.Unlock()
	c.nodes[1].hub.tickRooms(time.Now().Add(putBack + time.Second))
	if m := all[1].expect("peer-left"); m.peerID() != all[0].peer || m.Reason != "gone" {
		t.Fatalf("%s", m.raw)
	}
	all[0].send(`{"type":"leave","room":"tea"}`)
	if m := all[2].expect("peer-left"); m.peerID() != all[0].peer || m.Reason != "left" {
		t.Fatalf("%s", m.raw)
	}
}

func TestAPeerTakenOverDuringACutIsDroppedByItsFormerNode(t *testing.T) {
	c := newCluster(t, 2, Limits{BusTimeout: time.Second, TakeTimeout: 200 * time.Millisecond})
	n1, n2 := c.nodes[0], c.nodes[1]
	a := connect(t, n1, "user=a")
	b := connect(t, n2, "user=b")
	a.join("tea")
	b.join("tea")
	a.await("peer-joined")
	c.net.Cut(n1.bus.Self())
	n := a.resume(n2, "user=a")
	if n.hello.Resumed || n.peer != a.peer {
		t.Fatalf("%s", n.hello.raw)
	}
	n.join("tea")
	b.quiet()
	c.net.Heal(n1.bus.Self())
	if code := a.closed(); code != 4002 {
		t.Fatal(code, a.err)
	}
	b.send(`{"type":"signal","to":"` + a.peer + `","data":1}`)
	n.expect("signal")
	eventually(t, "one live copy", func() bool { return n1.hub.Stats().Sessions == 0 && n2.hub.Stats().Sessions == 2 })
	n.quiet()
}

func TestTheLimitOfARoomHoldsAcrossNodes(t *testing.T) {
	c := newCluster(t, 2, Limits{PeersPerRoom: 4})
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for i := range 8 {
		wg.Go(func() {
			p := connect(t, c.nodes[i%2], "user=u")
			p.send(`{"type":"join","room":"tea"}`)
			for {
				m := p.next()
				if m.Type == "joined" || m.Type == "error" {
					mu.Lock()
					got[m.Type+m.Code]++
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	if got["joined"] != 4 || got["errorroom-full"] != 4 {
		t.Fatal(got)
	}
}

func TestNamesAreShownAsTheyWereGiven(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	a := connect(t, c.nodes[0], "user=a")
	a.join("tea")
	b := dial(t, c.nodes[1], "user=b")
	go b.read()
	name := `"O'<Hara> \"Ö\" & Söhne \\ ` + strings.Repeat("ü", 20) + `"`
	b.send(`{"type":"hello","name":` + name + `}`)
	b.welcomed()
	b.join("tea")
	var want string
	_ = json.Unmarshal([]byte(name), &want)
	var p personJSON
	m := a.expect("peer-joined")
	_ = json.Unmarshal(m.Peer, &p)
	if p.Name != want || b.hello.Name != want {
		t.Fatalf("%s", m.raw)
	}
}

func TestASessionWhoseClaimWasTakenUnheardIsDropped(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	n1, n2 := c.nodes[0], c.nodes[1]
	a := connect(t, n1, "user=a")
	a.join("tea")
	sec, _ := secretsFrom(a.token)
	g, err := n2.bus.Claim(t.Context(), bus.Claim{Peer: a.peer, Proof: sec.proof})
	if err != nil {
		t.Fatal(err)
	}
	r, err := n2.bus.Join(t.Context(), "tea", bus.Member{Peer: a.peer, Epoch: g.Epoch}, 0)
	if err != nil {
		t.Fatal(err)
	}
	n1.hub.Message(n2.bus.Self(), (&packet{
		kind: pkJoined, room: "tea", version: r.Version, peer: a.peer, user: "a", name: "a", epoch: g.Epoch, sid: digest(r.Members),
	}).encode())
	if code := a.closed(); code != 4002 {
		t.Fatal(code, a.err)
	}
	eventually(t, "no copy", func() bool { return n1.hub.Stats().Sessions == 0 })
}

func TestTwoResumesAtOnceLeaveOneLiveCopy(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	for range 20 {
		a := connect(t, c.nodes[0], "user=a")
		var wg sync.WaitGroup
		var both [2]*client
		for i := range both {
			wg.Go(func() {
				d := dial(t, c.nodes[1+i], "user=a")
				both[i] = d
				go d.read()
				d.send(`{"type":"hello","resume":{"token":"` + a.token + `","seq":1}}`)
				d.hello = d.next()
			})
		}
		wg.Wait()
		for i, d := range both {
			if d.hello.Type != "welcome" || !d.hello.Resumed || d.hello.peerID() != a.peer {
				t.Fatalf("resume %d: %s", i, d.hello.raw)
			}
		}
		live := func() (n int) {
			for _, node := range c.nodes {
				n += node.hub.Stats().Sessions
			}
			return n
		}
		eventually(t, "one live copy", func() bool { return live() == 1 })
		for _, d := range both {
			_ = d.ws.Write(ctx10(t), websocket.MessageText, []byte(`{"type":"bye"}`)) // one of them is closed already
		}
		eventually(t, "none", func() bool { return live() == 0 })
	}
}
