package redis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"callbox/bus"
)

// list writes node ids as scripts want them.
func list(ids []bus.NodeID) string {
	var s strings.Builder
	s.WriteByte('\n')
	for _, id := range ids {
		s.WriteString(string(id))
		s.WriteByte('\n')
	}
	return s.String()
}

// live returns the ids of the nodes in view.
func (b *Bus) live() []bus.NodeID {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]bus.NodeID, 0, len(b.view))
	for id := range b.view {
		ids = append(ids, id)
	}
	return ids
}

// ask runs a script whose first two arguments say who lives, and again with a
// fresh view while it meets nodes that are not in it.
func (b *Bus) ask(ctx context.Context, script *rueidis.Lua, keys []string, args func(live []bus.NodeID) []string) ([]string, error) {
	var dead []bus.NodeID
	for range 4 {
		live := b.live()
		answer, err := script.Exec(ctx, b.pub, keys, append([]string{list(live), list(dead)}, args(live)...)).AsStrSlice()
		if err != nil {
			return nil, noLink(ctx, err)
		}
		if len(answer) == 0 {
			return nil, fmt.Errorf("redis: empty answer of a script")
		}
		switch answer[0] {
		case "U":
		case "L":
			return nil, fmt.Errorf("%w: Redis was too slow", bus.ErrNoLink)
		default:
			return answer, nil
		}
		if err := b.refresh(ctx); err != nil {
			return nil, noLink(ctx, err)
		}
		now := b.live()
		for _, id := range answer[1:] {
			if !slices.Contains(now, bus.NodeID(id)) {
				dead = append(dead, bus.NodeID(id))
			}
		}
	}
	return nil, fmt.Errorf("%w: nodes come and go too fast to tell who lives", bus.ErrNoLink)
}

// Claim makes this node the holder of a peer.
func (b *Bus) Claim(ctx context.Context, c bus.Claim) (bus.Grant, error) {
	g, err := b.claim(ctx, c)
	if err != nil {
		return bus.Grant{}, fmt.Errorf("claim %s: %w", c.Peer, err)
	}
	return g, nil
}

func (b *Bus) claim(ctx context.Context, c bus.Claim) (bus.Grant, error) {
	if err := bus.CheckName("peer id", c.Peer); err != nil {
		return bus.Grant{}, err
	}
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return bus.Grant{}, err
	}
	defer cancel()
	proof := sha256.Sum256(c.Proof)
	entry, waiting := b.keys.peer(c.Peer)
	answer, err := b.ask(ctx, b.scripts.claim, []string{entry, waiting}, func([]bus.NodeID) []string {
		return []string{string(b.self), hex.EncodeToString(proof[:]), strconv.FormatUint(c.Held, 10), millis(entryTTL), b.latestNumber(), b.until(ctx)}
	})
	if err != nil {
		return bus.Grant{}, err
	}
	switch answer[0] {
	case "T":
		return bus.Grant{}, bus.ErrTaken
	case "F":
		return bus.Grant{}, bus.ErrFenced
	}
	if answer[0] != "G" || len(answer) < 4 {
		return bus.Grant{}, fmt.Errorf("redis: unexpected answer %q", answer[0])
	}
	g := bus.Grant{Previous: bus.NodeID(answer[2])}
	if g.Epoch, err = strconv.ParseUint(answer[1], 10, 64); err != nil {
		return bus.Grant{}, fmt.Errorf("redis: epoch: %w", err)
	}
	if answer[3] != "" {
		if g.Parked, err = b.sealer.open("parked\x00"+c.Peer, answer[3]); err != nil {
			b.log.Warn("parked state ignored", "peer", c.Peer, "err", err)
			g.Parked = nil
		}
	}
	live := b.live()
	for _, s := range answer[4:] {
		if id := bus.NodeID(s); id != b.self && slices.Contains(live, id) {
			g.Waiting = append(g.Waiting, id)
		}
	}
	b.number(g.Epoch)
	b.holds(c.Peer, g.Epoch)
	return g, nil
}

// Locate finds the holder of a peer, in one round trip.
func (b *Bus) Locate(ctx context.Context, peer string, wait time.Duration) (bus.NodeID, uint64, error) {
	id, epoch, err := b.locate(ctx, peer, wait)
	if err != nil {
		return "", 0, fmt.Errorf("locate %s: %w", peer, err)
	}
	return id, epoch, nil
}

func (b *Bus) locate(ctx context.Context, peer string, wait time.Duration) (bus.NodeID, uint64, error) {
	if err := bus.CheckName("peer id", peer); err != nil {
		return "", 0, err
	}
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return "", 0, err
	}
	defer cancel()
	entry, waiting := b.keys.peer(peer)
	wait = min(wait, bus.MaxWait)
	answer, err := b.ask(ctx, b.scripts.locate, []string{entry, waiting}, func([]bus.NodeID) []string {
		return []string{string(b.self), millis(wait), strconv.Itoa(bus.MaxWaiting)}
	})
	if err != nil {
		return "", 0, err
	}
	if answer[0] != "H" || len(answer) < 3 {
		return "", 0, bus.ErrNotFound
	}
	epoch, err := strconv.ParseUint(answer[2], 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("redis: epoch: %w", err)
	}
	return bus.NodeID(answer[1]), epoch, nil
}

// Release ends a claim of this node.
func (b *Bus) Release(ctx context.Context, peer string, epoch uint64) error {
	b.letGo(peer, epoch)
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return fmt.Errorf("release %s: %w", peer, err)
	}
	defer cancel()
	entry, _ := b.keys.peer(peer)
	err = b.scripts.release.Exec(ctx, b.pub, []string{entry}, []string{string(b.self), strconv.FormatUint(epoch, 10)}).Error()
	if err != nil {
		return fmt.Errorf("release %s: %w", peer, noLink(ctx, err))
	}
	return nil
}

// Park leaves a peer's state for its next claim.
func (b *Bus) Park(ctx context.Context, peer string, epoch uint64, state []byte, ttl time.Duration) error {
	if len(state) > bus.MaxParked {
		return fmt.Errorf("park %s: state of %d bytes: %w", peer, len(state), bus.ErrTooLarge)
	}
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return fmt.Errorf("park %s: %w", peer, err)
	}
	defer cancel()
	entry, _ := b.keys.peer(peer)
	answer, err := b.scripts.park.Exec(ctx, b.pub, []string{entry}, []string{
		string(b.self), strconv.FormatUint(epoch, 10), b.sealer.seal("parked\x00"+peer, state), millis(max(ttl, time.Millisecond)),
	}).AsStrSlice()
	switch {
	case err != nil:
		return fmt.Errorf("park %s: %w", peer, noLink(ctx, err))
	case len(answer) != 1 || answer[0] != "P":
		return fmt.Errorf("park %s: %w", peer, bus.ErrFenced)
	}
	b.letGo(peer, epoch)
	return nil
}
