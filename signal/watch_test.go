package signal

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// watched is a cluster and what its nodes tell together.
type watched struct {
	*cluster
	mu     sync.Mutex
	events []RoomEvent // guarded by mu
}

func newWatched(t *testing.T, nodes int, limits Limits) *watched {
	t.Helper()
	w := &watched{cluster: newCluster(t, 0, limits)}
	w.watch = func(e RoomEvent) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}
	for range nodes {
		w.add(limits)
	}
	return w
}

// told are the events so far, short: who, and why.
func (w *watched) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		text := string(e.Change)
		if e.User != "" {
			text += " " + e.User
		}
		if e.Reason != "" {
			text += " " + e.Reason
		}
		out = append(out, text)
	}
	return out
}

// tells waits for exactly these events.
func (w *watched) tells(want ...string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%q are told", want), func() bool {
		got := w.told()
		if len(got) > len(want) {
			w.t.Fatalf("told %q, want %q", got, want)
		}
		return slices.Equal(got, want)
	})
}

func TestRoomEventsAreToldOnce(t *testing.T) {
	w := newWatched(t, 2, Limits{})
	a := connect(t, w.nodes[0], "user=ada")
	a.join("tea")
	w.tells("room.started", "peer.joined ada")
	b := connect(t, w.nodes[1], "user=bob")
	b.join("tea")
	b.join("tea") // again is no news
	w.tells("room.started", "peer.joined ada", "peer.joined bob")
	a.send(`{"type":"leave","room":"tea"}`)
	a.await("left")
	w.tells("room.started", "peer.joined ada", "peer.joined bob", "peer.left ada left")
	b.send(`{"type":"bye"}`)
	w.tells("room.started", "peer.joined ada", "peer.joined bob", "peer.left ada left", "peer.left bob left", "room.ended")
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range w.events {
		if e.Room != "tea" || e.Version == 0 || time.Since(e.At) > time.Hour || i > 0 && e.Version < w.events[i-1].Version {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if first := w.events[1]; first.Peer != a.peer || first.Name != "ada" {
		t.Errorf("joined: %+v", first)
	}
}

func TestMovedSessionIsNoRoomEvent(t *testing.T) {
	w := newWatched(t, 2, Limits{})
	a := connect(t, w.nodes[0], "user=ada")
	a.join("tea")
	a.drop()
	a = a.resume(w.nodes[1], "user=ada")
	if !a.hello.Resumed {
		t.Fatal("not resumed")
	}
	a.send(`{"type":"bye"}`)
	w.tells("room.started", "peer.joined ada", "peer.left ada left", "room.ended")
}

func TestHeldPeerThatDoesNotComeBackHasGone(t *testing.T) {
	w := newWatched(t, 1, Limits{ResumeWindow: 200 * time.Millisecond})
	a := connect(t, w.nodes[0], "user=ada")
	a.join("tea")
	a.drop()
	w.tells("room.started", "peer.joined ada", "peer.left ada gone", "room.ended")
}

func TestPeersOfADeadNodeAreToldOnceByWhoIsLeft(t *testing.T) {
	w := newWatched(t, 3, Limits{ResumeWindow: 300 * time.Millisecond})
	lone, a := connect(t, w.nodes[0], "user=lone"), connect(t, w.nodes[0], "user=ada")
	lone.join("alone")
	a.join("tea")
	w.tells("room.started", "peer.joined lone", "room.started", "peer.joined ada")
	b := connect(t, w.nodes[1], "user=bob")
	b.join("tea")
	// A node that comes later knows who is there already.
	w.add(Limits{ResumeWindow: 300 * time.Millisecond})
	eventually(t, "every node knows all members", func() bool {
		for _, n := range w.nodes {
			n.hub.roll.mu.Lock()
			known := len(n.hub.roll.rooms["tea"]) == 2 && len(n.hub.roll.rooms["alone"]) == 1
			n.hub.roll.mu.Unlock()
			if !known {
				return false
			}
		}
		return true
	})
	w.nodes[0].kill()
	// One of the two comes back: nothing is told of that one.
	a = a.resume(w.nodes[2], "user=ada")
	if a.hello.Resumed {
		t.Fatal("resumed from a dead node")
	}
	a.join("tea")
	want := []string{"room.started", "peer.joined lone", "room.started", "peer.joined ada", "peer.joined bob", "peer.left lone gone", "room.ended"}
	w.tells(want...)
	// Nor later: everybody has forgotten whom there was to wait for.
	eventually(t, "nobody is waited for", func() bool {
		for _, n := range w.nodes[1:] {
			n.hub.roll.mu.Lock()
			waits := n.hub.roll.orphanedLocked("tea") || len(n.hub.roll.rooms["alone"]) > 0
			n.hub.roll.mu.Unlock()
			if waits {
				return false
			}
		}
		return true
	})
	w.tells(want...)
}

func TestHubThatIsNotWatchedKeepsNoRoll(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	a := connect(t, c.nodes[0], "user=ada")
	a.join("tea")
	b := connect(t, c.nodes[1], "user=bob")
	b.join("tea")
	for _, n := range c.nodes {
		n.hub.roll.mu.Lock()
		if len(n.hub.roll.rooms) > 0 {
			t.Errorf("roll: %v", n.hub.roll.rooms)
		}
		n.hub.roll.mu.Unlock()
	}
}
