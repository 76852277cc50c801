package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"callbox/bus"
)

// Join adds a member of this node.
func (b *Bus) Join(ctx context.Context, room string, m bus.Member, limit int) (bus.Room, error) {
	err := bus.CheckName("peer id", m.Peer)
	if err == nil && len(m.Info) > bus.MaxInfo {
		err = fmt.Errorf("info of %d bytes: %w", len(m.Info), bus.ErrTooLarge)
	}
	var r bus.Room
	if err == nil {
		r, err = b.room(ctx, room, "join", m, max(limit, 0))
	}
	if err != nil {
		return bus.Room{}, fmt.Errorf("join room %s: %w", room, err)
	}
	b.entered(m.Peer, room, m.Epoch)
	return r, nil
}

// Leave removes a member.
func (b *Bus) Leave(ctx context.Context, room, peer string, epoch uint64) (bus.Room, error) {
	b.left(peer, room, epoch)
	r, err := b.room(ctx, room, "leave", bus.Member{Peer: peer, Epoch: epoch}, 0)
	if err != nil {
		return bus.Room{}, fmt.Errorf("leave room %s: %w", room, err)
	}
	return r, nil
}

// Room returns a room as it is.
func (b *Bus) Room(ctx context.Context, room string) (bus.Room, error) {
	r, err := b.room(ctx, room, "look", bus.Member{}, 0)
	if err != nil {
		return bus.Room{}, fmt.Errorf("room %s: %w", room, err)
	}
	return r, nil
}

func (b *Bus) room(ctx context.Context, room, op string, m bus.Member, limit int) (bus.Room, error) {
	if err := bus.CheckName("room name", room); err != nil {
		return bus.Room{}, err
	}
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return bus.Room{}, err
	}
	defer cancel()
	answer, err := b.ask(ctx, b.scripts.room, []string{b.keys.room(room)}, func([]bus.NodeID) []string {
		usable, preferred := b.relays(op == "join", m.Relay)
		return []string{
			op, list(usable), string(preferred), millis(entryTTL),
			string(b.self), m.Peer, strconv.FormatUint(m.Epoch, 10), string(m.Info), strconv.Itoa(limit), b.latestNumber(), b.until(ctx),
		}
	})
	if err != nil {
		return bus.Room{}, err
	}
	switch answer[0] {
	case "X":
		return bus.Room{}, bus.ErrRoomFull
	case "F":
		return bus.Room{}, bus.ErrFenced
	}
	r, err := parseRoom(answer)
	b.number(r.Version)
	return r, err
}

// relays returns the nodes that may be a room's relay, and the one to take: at
// a join the one before, else this node, if they may; else the least loaded.
func (b *Bus) relays(join bool, before bus.NodeID) (usable []bus.NodeID, preferred bus.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	load := 0
	for id, s := range b.view {
		if s.info.Draining {
			continue
		}
		usable = append(usable, id)
		if n := s.info.Allocations; preferred == "" || n < load || n == load && id < preferred {
			preferred, load = id, n
		}
	}
	for _, id := range []bus.NodeID{b.self, before} {
		if s := b.view[id]; join && s != nil && !s.info.Draining {
			preferred = id
		}
	}
	return usable, preferred
}

func parseRoom(answer []string) (bus.Room, error) {
	if len(answer) < 4 || answer[0] != "R" {
		return bus.Room{}, fmt.Errorf("redis: unexpected answer %q", answer[0])
	}
	r := bus.Room{Relay: bus.NodeID(answer[3])}
	var err error
	if r.Version, err = strconv.ParseUint(answer[1], 10, 64); err != nil {
		return bus.Room{}, fmt.Errorf("redis: room version: %w", err)
	}
	if r.Began, err = strconv.ParseUint(answer[2], 10, 64); err != nil {
		return bus.Room{}, fmt.Errorf("redis: first version of a room: %w", err)
	}
	for i := 4; i+1 < len(answer); i += 2 {
		node, rest, _ := strings.Cut(answer[i+1], "\n")
		number, info, _ := strings.Cut(rest, "\n")
		epoch, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return bus.Room{}, fmt.Errorf("redis: epoch of a member: %w", err)
		}
		r.Members = append(r.Members, bus.Member{Peer: answer[i], Node: bus.NodeID(node), Epoch: epoch, Info: []byte(info)})
	}
	return r, nil
}
