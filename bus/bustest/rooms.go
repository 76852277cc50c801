package bustest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"callbox/bus"
)

func (n *node) join(room, peer string, epoch uint64, limit int) bus.Room {
	n.t.Helper()
	r, err := n.Join(ctx(n.t), room, bus.Member{Peer: peer, Epoch: epoch, Info: []byte("info of " + peer)}, limit)
	if err != nil {
		n.t.Fatalf("join %s as %s: %v", room, peer, err)
	}
	return r
}

func (n *node) leave(room, peer string, epoch uint64) bus.Room {
	n.t.Helper()
	r, err := n.Leave(ctx(n.t), room, peer, epoch)
	if err != nil {
		n.t.Fatalf("leave %s as %s: %v", room, peer, err)
	}
	return r
}

func (n *node) room(room string) bus.Room {
	n.t.Helper()
	r, err := n.Room(ctx(n.t), room)
	if err != nil {
		n.t.Fatalf("room %s: %v", room, err)
	}
	return r
}

// peers returns the sorted peer ids in a room.
func peers(r bus.Room) []string {
	ids := []string{}
	for _, m := range r.Members {
		ids = append(ids, m.Peer)
	}
	slices.Sort(ids)
	return ids
}

func wantPeers(t testing.TB, r bus.Room, want ...string) {
	t.Helper()
	if got := peers(r); !slices.Equal(got, want) && len(got)+len(want) > 0 {
		t.Fatalf("members %v, want %v", got, want)
	}
}

func roomVersions(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	if r := a.room("r"); len(r.Members) != 0 || r.Relay != "" {
		t.Errorf("a room nobody is in: %+v", r)
	}
	var last uint64
	newer := func(r bus.Room) bus.Room {
		t.Helper()
		if r.Version <= last {
			t.Fatalf("version %d after %d", r.Version, last)
		}
		last = r.Version
		return r
	}
	same := func(r bus.Room) {
		t.Helper()
		if r.Version != last {
			t.Fatalf("version %d, but nothing has changed since %d", r.Version, last)
		}
	}
	first := newer(a.join("r", "p", 5, 0))
	wantPeers(t, first, "p")
	r := newer(b.join("r", "q", 6, 0))
	wantPeers(t, r, "p", "q")
	if first.Began != first.Version || r.Began != first.Version {
		t.Errorf("the room began with %d, then with %d, want %d", first.Began, r.Began, first.Version)
	}
	for _, m := range r.Members {
		want := bus.Member{Peer: "p", Node: a.id, Epoch: 5}
		if m.Peer == "q" {
			want = bus.Member{Peer: "q", Node: b.id, Epoch: 6}
		}
		if m.Node != want.Node || m.Epoch != want.Epoch || string(m.Info) != "info of "+m.Peer {
			t.Errorf("member %+v, want %+v with its info", m, want)
		}
	}
	same(a.room("r"))
	same(b.room("r"))
	same(a.leave("r", "nobody", 9))
	same(b.join("r", "q", 6, 0))
	wantPeers(t, newer(a.leave("r", "p", 5)), "q")
	wantPeers(t, newer(b.leave("r", "q", 6)))
	wantPeers(t, b.room("r"))
	// Had it another relay before, it has that again, unless that is gone.
	again, err := a.Join(ctx(t), "r", bus.Member{Peer: "p", Epoch: 7, Relay: b.id}, 0)
	if err != nil || again.Relay != b.id || again.Members[0].Relay != "" {
		t.Errorf("join with relay %s: %+v, %v", b.id, again, err)
	}
	wantPeers(t, newer(again), "p")
	other, err := a.Join(ctx(t), "s", bus.Member{Peer: "p", Epoch: 7, Relay: "gone.1"}, 0)
	if err != nil || other.Relay != a.id {
		t.Errorf("join with a relay that is gone: %+v, %v", other, err)
	}
	if again.Began != again.Version {
		t.Errorf("the room began anew with %d, want %d", again.Began, again.Version)
	}
	if _, err := a.Join(ctx(t), "r", bus.Member{Peer: "z", Info: make([]byte, bus.MaxInfo+1)}, 0); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("join with too much info: %v, want ErrTooLarge", err)
	}
	same(a.room("r"))
}

func roomLimit(t *testing.T, c Cluster) {
	nodes := []*node{open(t, c, "a"), open(t, c, "b"), open(t, c, "d")}
	meet(nodes...)
	const limit = 5
	var wg sync.WaitGroup
	var mu sync.Mutex
	joined := []string{}
	versions := map[uint64]bool{}
	for i := range 30 {
		wg.Go(func() {
			peer := fmt.Sprint("p", i)
			r, err := nodes[i%3].Join(ctx(t), "r", bus.Member{Peer: peer, Epoch: 1}, limit)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				joined = append(joined, peer)
				if versions[r.Version] {
					t.Errorf("version %d was given to two joins", r.Version)
				}
				versions[r.Version] = true
			case !errors.Is(err, bus.ErrRoomFull):
				t.Errorf("join: %v", err)
			}
		})
	}
	wg.Wait()
	slices.Sort(joined)
	if len(joined) != limit {
		t.Fatalf("%d of 30 joined a room of %d", len(joined), limit)
	}
	wantPeers(t, nodes[0].room("r"), joined...)
	// Joining again is no further member.
	nodes[1].join("r", joined[0], 2, limit)
	nodes[1].leave("r", joined[0], 2)
	nodes[2].join("r", "late", 1, limit)
}

func joinAgain(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	r1 := a.join("r", "p", 5, 0)
	r2 := b.join("r", "p", 6, 0)
	if len(r2.Members) != 1 || r2.Members[0].Node != b.id || r2.Members[0].Epoch != 6 || r2.Version <= r1.Version {
		t.Errorf("after joining again on another node: %+v", r2)
	}
	if _, err := a.Join(ctx(t), "r", bus.Member{Peer: "p", Epoch: 5}, 0); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("join with an older epoch: %v, want ErrFenced", err)
	}
	r3, err := b.Join(ctx(t), "r", bus.Member{Peer: "p", Epoch: 6, Info: []byte("new")}, 0)
	if err != nil || r3.Version <= r2.Version || string(r3.Members[0].Info) != "new" {
		t.Errorf("join with another info: %+v, %v", r3, err)
	}
}

func leaveOlder(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	a.join("r", "p", 5, 0)
	r := b.join("r", "p", 6, 0)
	if after := a.leave("r", "p", 5); after.Version != r.Version || len(after.Members) != 1 {
		t.Errorf("the old holder's leave changed the room to %+v", after)
	}
	wantPeers(t, b.leave("r", "p", 6))
}

func killedNodesMembers(t *testing.T, c Cluster) {
	a, b := open(t, c, "a"), open(t, c, "b")
	meet(a, b)
	a.join("r", "p", 5, 2)
	before := b.join("r", "q", 6, 2)
	c.Kill(t, b.Bus)
	var r bus.Room
	Eventually(t, Lease, "the dead node's member to be gone", func() bool {
		r = a.room("r")
		return len(r.Members) == 1
	})
	wantPeers(t, r, "p")
	if r.Version <= before.Version {
		t.Errorf("version %d after %d though a member is gone", r.Version, before.Version)
	}
	wantPeers(t, a.join("r", "s", 7, 2), "p", "s")
}

func roomRelay(t *testing.T, c Cluster) {
	a, b, d := open(t, c, "a"), open(t, c, "b"), open(t, c, "d")
	meet(a, b, d)
	for _, n := range []*node{a, b, d} {
		if err := n.Announce(ctx(t), bus.NodeInfo{TURN: []string{"turn:" + n.id.Name()}}); err != nil {
			t.Fatal(err)
		}
	}
	live := func(id bus.NodeID) *node {
		for _, n := range []*node{a, b, d} {
			if n.id == id {
				return n
			}
		}
		t.Fatalf("the relay is %q, which is no node", id)
		return nil
	}
	first := live(b.join("r", "p", 1, 0).Relay)
	a.join("r", "q", 1, 0)
	if r := d.room("r"); r.Relay != first.id {
		t.Errorf("the relay moved from %s to %s without need", first.id, r.Relay)
	}
	if err := first.Announce(ctx(t), bus.NodeInfo{Draining: true}); err != nil {
		t.Fatal(err)
	}
	watcher := a
	if first == a {
		watcher = d
	}
	var second *node
	Eventually(t, patience, "the relay to leave the draining node", func() bool {
		r := watcher.room("r")
		second = live(r.Relay)
		return second != first
	})
	if second == watcher { // kill another than the one that looks
		for _, n := range []*node{a, b, d} {
			if n != second && n != first {
				watcher = n
			}
		}
	}
	watcher.join("r", "s", 1, 0) // the room outlives the others' members
	c.Kill(t, second.Bus)
	Eventually(t, Lease, "the relay to leave the dead node", func() bool {
		id := watcher.room("r").Relay
		return id != second.id && id != ""
	})
}
