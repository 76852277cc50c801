package signal

import (
	"context"
	"sync"
	"time"

	"callbox/bus"
)

// RoomChange is what happened to a room.
type RoomChange string

// The changes of a room.
const (
	RoomStarted RoomChange = "room.started" // the first peer comes in
	PeerJoined  RoomChange = "peer.joined"
	PeerLeft    RoomChange = "peer.left"
	RoomEnded   RoomChange = "room.ended" // the last one has gone
)

// RoomEvent is a change of who is in a room. Of all nodes of a cluster that watch, one tells it: the one that carried the change
// out, or where a node has died the live one with the lowest id. Should that one die too at this moment, an event may be told
// again by the next.
type RoomEvent struct {
	Change  RoomChange
	Room    string
	Version uint64 // of the room: later changes have a higher one, whichever node tells them
	Peer    string // this and what follows is empty for the room itself
	User    string
	Name    string
	Reason  string // of PeerLeft: left or gone
	At      time.Time
}

// roll is who is in which room of the whole cluster, as far as this node has been told: the nodes tell each other, so that those
// who are left can say who has gone with a node that died. It is kept only where somebody watches, and is as bounded as the
// connections of all nodes and the rooms of each are. Its lock is a leaf.
type roll struct {
	mu       sync.Mutex
	rooms    map[string]map[string]rollEntry
	told     map[bus.NodeID]bool // nodes that know of our members
	check    time.Time           // when to look for members who have not come back; zero: there are none
	sweeping bool
}

type rollEntry struct {
	who   person
	node  bus.NodeID
	epoch uint64
	over  time.Time // its node is gone: when the peer counts as gone; zero: it is there
}

// sweepGrace is how much longer than the resume window a peer of a dead node has: whoever comes back in the last moment has
// still to join.
const sweepGrace = 2 * time.Second

func (r *roll) setLocked(room, peer string, e rollEntry) {
	if r.rooms == nil {
		r.rooms = make(map[string]map[string]rollEntry)
	}
	if r.rooms[room] == nil {
		r.rooms[room] = make(map[string]rollEntry)
	}
	r.rooms[room][peer] = e
}

func (r *roll) deleteLocked(room, peer string) {
	delete(r.rooms[room], peer)
	if len(r.rooms[room]) == 0 {
		delete(r.rooms, room)
	}
}

// orphanedLocked says whether peers of a dead node may still come back to a room.
func (r *roll) orphanedLocked(room string) bool {
	for _, e := range r.rooms[room] {
		if !e.over.IsZero() {
			return true
		}
	}
	return false
}

// tellLocked tells the watcher. roll.mu is held, so that what one node tells is in order.
func (h *Hub) tellLocked(change RoomChange, room string, version uint64, who person, reason string) {
	h.watch(RoomEvent{
		Change: change, Room: room, Version: version, Peer: who.peer, User: who.user, Name: who.name, Reason: reason, At: time.Now(),
	})
}

// noteJoined: a peer of this node is in a room. fresh: its client has asked for that; else it was there before, elsewhere.
func (h *Hub) noteJoined(name string, who person, epoch uint64, now bus.Room, fresh bool) {
	if h.watch == nil || named(name) { // rooms of other servers' protocols are told to nobody
		return
	}
	r := &h.roll
	r.mu.Lock()
	old, known := r.rooms[name][who.peer]
	if known && old.epoch > epoch {
		r.mu.Unlock()
		return
	}
	orphaned := r.orphanedLocked(name)
	r.setLocked(name, who.peer, rollEntry{who: who, node: h.self, epoch: epoch})
	if fresh && !known {
		if len(now.Members) == 1 && !orphaned {
			h.tellLocked(RoomStarted, name, now.Version, person{}, "")
		}
		h.tellLocked(PeerJoined, name, now.Version, who, "")
	}
	r.mu.Unlock()
	h.toNodes(h.otherNodes(), rollCall(name, who, epoch, ""))
}

// noteLeft: this node took a peer out of a room, which then was as given.
func (h *Hub) noteLeft(name, peer string, epoch uint64, now bus.Room, reason string) {
	if h.watch == nil {
		return
	}
	r := &h.roll
	r.mu.Lock()
	e, known := r.rooms[name][peer]
	if !known || e.epoch > epoch {
		r.mu.Unlock()
		return
	}
	r.deleteLocked(name, peer)
	h.tellLocked(PeerLeft, name, now.Version, e.who, reason)
	if len(now.Members) == 0 && !r.orphanedLocked(name) {
		h.tellLocked(RoomEnded, name, now.Version, person{}, "")
	}
	r.mu.Unlock()
	h.toNodes(h.otherNodes(), rollCall(name, e.who, epoch, reason))
}

// rollCall is what nodes tell each other: reason is empty for who came. An empty room: forget all of mine, they follow.
func rollCall(room string, who person, epoch uint64, reason string) *packet {
	return &packet{kind: pkRoll, room: room, peer: who.peer, user: who.user, name: who.name, epoch: epoch, reason: reason}
}

// rollCalled hears of another node's member.
func (h *Hub) rollCalled(from bus.NodeID, p *packet) {
	if h.watch == nil {
		return
	}
	r := &h.roll
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.room == "" {
		for room, peers := range r.rooms {
			for peer, e := range peers {
				if e.node == from {
					r.deleteLocked(room, peer)
				}
			}
		}
		return
	}
	e, known := r.rooms[p.room][p.peer]
	switch {
	case known && e.epoch > p.epoch:
	case p.reason == "":
		r.setLocked(p.room, p.peer, rollEntry{who: p.who(), node: from, epoch: p.epoch})
	case known:
		r.deleteLocked(p.room, p.peer)
	}
}

// rollNodes notes whose members may be gone, and tells new nodes of ours.
func (h *Hub) rollNodes(live map[bus.NodeID]bool) {
	if h.watch == nil {
		return
	}
	r := &h.roll
	over := time.Now().Add(h.limits.ResumeWindow + sweepGrace)
	r.mu.Lock()
	var fresh []bus.NodeID
	if r.told == nil {
		r.told = make(map[bus.NodeID]bool)
	}
	for node := range r.told {
		if !live[node] {
			delete(r.told, node)
		}
	}
	for node := range live {
		if node != h.self && !r.told[node] {
			r.told[node] = true
			fresh = append(fresh, node)
		}
	}
	var mine []*packet
	for room, peers := range r.rooms {
		for peer, e := range peers {
			switch {
			case e.node == h.self:
				if len(fresh) > 0 {
					mine = append(mine, rollCall(room, e.who, e.epoch, ""))
				}
			case live[e.node]:
				if !e.over.IsZero() {
					e.over = time.Time{}
					peers[peer] = e
				}
			case e.over.IsZero():
				e.over = over
				peers[peer] = e
				if r.check.IsZero() {
					r.check = over
				}
			}
		}
	}
	r.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	h.toNodes(fresh, &packet{kind: pkRoll})
	for _, p := range mine {
		h.toNodes(fresh, p)
	}
}

func (h *Hub) otherNodes() []bus.NodeID {
	var others []bus.NodeID
	for _, n := range h.bus.Nodes() {
		if n.ID != h.self {
			others = append(others, n.ID)
		}
	}
	return others
}

// tickRoll looks, when it is time, for members of dead nodes who have not come back.
func (h *Hub) tickRoll(now time.Time) {
	if h.watch == nil {
		return
	}
	h.mu.RLock()
	down := h.linkDown
	h.mu.RUnlock()
	r := &h.roll
	r.mu.Lock()
	defer r.mu.Unlock()
	if down || r.check.IsZero() || now.Before(r.check) || r.sweeping {
		return
	}
	r.sweeping = true
	h.background(func(ctx context.Context) {
		h.sweepRoll(ctx)
		r.mu.Lock()
		r.sweeping = false
		r.mu.Unlock()
	})
}

// sweepRoll tells of those who have gone with their node, if that is this node's to do.
func (h *Hub) sweepRoll(ctx context.Context) {
	lowest := h.self
	for _, n := range h.bus.Nodes() {
		lowest = min(lowest, n.ID)
	}
	r := &h.roll
	now := time.Now()
	r.mu.Lock()
	var rooms []string
	r.check = time.Time{}
	for room, peers := range r.rooms {
		due := false
		for _, e := range peers {
			if e.over.IsZero() {
				continue
			}
			if r.check.IsZero() || e.over.Before(r.check) {
				r.check = e.over // until they are gone from here: the one whose turn it is may die
			}
			due = due || !now.Before(e.over)
		}
		if due {
			rooms = append(rooms, room)
		}
	}
	r.mu.Unlock()
	if lowest != h.self {
		return
	}
	for _, room := range rooms {
		state, err := h.bus.Room(ctx, room)
		if err != nil {
			return // again with the next tick
		}
		h.sweepRoom(room, state, now)
	}
}

func (h *Hub) sweepRoom(room string, state bus.Room, now time.Time) {
	there := make(map[string]bus.Member, len(state.Members))
	for i := range state.Members {
		there[state.Members[i].Peer] = state.Members[i]
	}
	r := &h.roll
	var gone []*packet
	r.mu.Lock()
	for peer, e := range r.rooms[room] {
		if e.over.IsZero() || now.Before(e.over) {
			continue
		}
		if m, ok := there[peer]; ok { // back on a node whose news has not come
			r.setLocked(room, peer, rollEntry{who: e.who, node: m.Node, epoch: m.Epoch})
			continue
		}
		r.deleteLocked(room, peer)
		h.tellLocked(PeerLeft, room, state.Version, e.who, reasonGone)
		gone = append(gone, rollCall(room, e.who, e.epoch, reasonGone))
	}
	if len(gone) > 0 && len(state.Members) == 0 && len(r.rooms[room]) == 0 {
		h.tellLocked(RoomEnded, room, state.Version, person{}, "")
	}
	r.mu.Unlock()
	others := h.otherNodes()
	for _, p := range gone {
		h.toNodes(others, p)
	}
}
