package memory

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"callbox/bus"
)

type room struct {
	version uint64
	began   uint64
	relay   bus.NodeID
	members map[string]bus.Member
}

// changed gives the room its next version. Called with mu.
func (n *Network) changed(name string, r *room) {
	if len(r.members) == 0 {
		delete(n.rooms, name)
	}
	n.lastEpoch = max(n.lastEpoch, r.version, uint64(time.Now().UnixMicro())) + 1
	r.version = n.lastEpoch
}

// current returns the room without members of nodes that are gone, and with a
// relay node that is there and not draining where one is. Called with mu.
func (n *Network) current(name string) *room {
	r := n.rooms[name]
	if r == nil {
		return &room{members: map[string]bus.Member{}}
	}
	before, relay := len(r.members), r.relay
	for peer, m := range r.members {
		if !n.live(m.Node) {
			delete(r.members, peer)
		}
	}
	if len(r.members) > 0 && !n.usable(r.relay) {
		r.relay = n.pickRelay(r.relay)
	}
	if len(r.members) != before || r.relay != relay {
		n.changed(name, r)
	}
	return r
}

func (n *Network) usable(id bus.NodeID) bool {
	return n.live(id) && !n.nodes[id].info.Draining
}

// pickRelay prefers the given node, then the least loaded one that does not
// drain; if all do, one that is there.
func (n *Network) pickRelay(first bus.NodeID) bus.NodeID {
	if n.usable(first) {
		return first
	}
	var best bus.NodeID
	load := 0
	for _, info := range n.list() {
		if !info.Draining && (best == "" || info.Allocations < load) {
			best, load = info.ID, info.Allocations
		}
	}
	if best == "" && n.live(first) {
		return first
	}
	return best
}

func (r *room) state() bus.Room {
	s := bus.Room{Version: r.version, Began: r.began, Relay: r.relay, Members: make([]bus.Member, 0, len(r.members))}
	if len(r.members) == 0 {
		s.Began, s.Relay = 0, ""
	}
	for _, m := range r.members {
		s.Members = append(s.Members, m)
	}
	return s
}

// Join adds a member of this node.
func (b *Bus) Join(ctx context.Context, name string, m bus.Member, limit int) (bus.Room, error) {
	if err := bus.CheckName("room name", name); err != nil {
		return bus.Room{}, err
	}
	if err := bus.CheckName("peer id", m.Peer); err != nil {
		return bus.Room{}, err
	}
	if len(m.Info) > bus.MaxInfo {
		return bus.Room{}, fmt.Errorf("join room %s: info of %d bytes: %w", name, len(m.Info), bus.ErrTooLarge)
	}
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return bus.Room{}, fmt.Errorf("join room %s: %w", name, err)
	}
	was := m.Relay
	m.Node, m.Relay = b.self, ""
	m.Info = bytes.Clone(m.Info)
	r := n.current(name)
	old, again := r.members[m.Peer]
	switch {
	case again && old.Epoch > m.Epoch:
		return bus.Room{}, fmt.Errorf("join room %s: %w", name, bus.ErrFenced)
	case !again && limit > 0 && len(r.members) >= limit:
		return bus.Room{}, fmt.Errorf("join room %s: %w", name, bus.ErrRoomFull)
	case again && old.Epoch == m.Epoch && old.Node == m.Node && bytes.Equal(old.Info, m.Info):
		return r.state(), nil
	}
	begins := n.rooms[name] != r
	if len(r.members) == 0 {
		r.relay = n.pickRelay(b.self)
		if n.usable(was) {
			r.relay = was
		}
		n.rooms[name] = r
	}
	r.members[m.Peer] = m
	n.changed(name, r)
	if begins {
		r.began = r.version
	}
	return r.state(), nil
}

// Leave removes a member.
func (b *Bus) Leave(ctx context.Context, name, peer string, epoch uint64) (bus.Room, error) {
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return bus.Room{}, fmt.Errorf("leave room %s: %w", name, err)
	}
	r := n.current(name)
	if m, there := r.members[peer]; there && m.Epoch <= epoch {
		delete(r.members, peer)
		n.changed(name, r)
	}
	return r.state(), nil
}

// Room returns a room as it is.
func (b *Bus) Room(ctx context.Context, name string) (bus.Room, error) {
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := b.ready(ctx); err != nil {
		return bus.Room{}, fmt.Errorf("room %s: %w", name, err)
	}
	return n.current(name).state(), nil
}
