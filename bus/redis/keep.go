package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"callbox/bus"
)

var errForgotten = errors.New("what the nodes shared in Redis is lost")

// keeper holds this node's lease and subscription. Its fields are owned by
// run (by Start until run begins).
type keeper struct {
	b      *Bus
	term   uint64 // raised each time the lease was lost
	sub    *subscription
	leased bool // there has been a lease
	failed int  // rounds in a row

	parsed map[string]parsedEntry // by node: entries seldom change, and parsing them is the work
}

type parsedEntry struct {
	raw   string
	entry nodeEntry
}

// run renews the lease until Close.
func (k *keeper) run() {
	b := k.b
	defer b.wg.Done()
	defer k.hangUp()
	timer := time.NewTimer(renewEvery)
	defer timer.Stop()
	for {
		var broken <-chan struct{}
		if k.sub != nil {
			broken = k.sub.broken
		}
		var waiting chan error
		select {
		case <-b.ctx.Done():
			return
		case <-timer.C:
		case <-broken:
		case <-b.kick:
		case waiting = <-b.refreshes:
		}
		if waiting != nil && k.failed > 0 {
			// Already trying, at a pace of its own.
			waiting <- bus.ErrNoLink
			continue
		}
		err := k.round()
		if waiting != nil {
			waiting <- err
		}
		next := jitter(renewEvery)
		if err != nil {
			k.failed++
			next = jitter(min(time.Second, 50*time.Millisecond<<min(k.failed, 5)))
			if k.failed >= 2 {
				b.linkDown(err)
			}
		} else {
			k.failed = 0
			b.linkUp()
		}
		timer.Reset(next)
	}
}

func (k *keeper) hangUp() {
	if k.sub != nil {
		k.sub.close()
		k.sub = nil
	}
}

// round makes sure of the subscription, renews the lease and looks at who else
// is there.
func (k *keeper) round() error {
	b := k.b
	if k.leased && !b.leaseHolds(time.Now()) {
		// From here on this node may count as gone: whatever was on its way is
		// handed back to its senders, so it must not be delivered any more.
		b.linkDown(fmt.Errorf("the lease of %v has run out", leaseTime))
		k.hangUp()
		k.term++
		k.leased = false
	}
	if k.sub == nil || k.sub.isBroken() {
		if k.sub != nil {
			b.sawTrouble()
			k.hangUp()
		}
		sub, err := b.subscribe(k.term)
		if err != nil {
			b.sawTrouble()
			return err
		}
		k.sub = sub
		b.term.Store(k.term)
		b.deliver.Lock()
		b.current = sub
		b.deliver.Unlock()
	}
	asked := time.Now()
	list, err := k.renew()
	if err != nil {
		b.sawTrouble()
		return err
	}
	b.mu.Lock()
	missed := b.missed
	b.mu.Unlock()
	if k.leased && list.fresh || missed {
		// Redis is there and has forgotten this node: everything else too. Or sample has missed something.
		b.linkDown(errForgotten)
	}
	k.leased = true
	first := b.lease.Swap(&asked) == nil
	b.look(list, asked, list.fresh && !first)
	return nil
}

// leaseHolds says whether this node surely still counts as live. Both clocks
// are asked: the monotonic one stands still while a machine sleeps.
func (b *Bus) leaseHolds(now time.Time) bool {
	since := b.lease.Load()
	return since != nil && now.Sub(*since) < leaseTime && now.Round(0).Sub(since.Round(0)) < leaseTime
}

func (b *Bus) sawTrouble() { b.trouble.Store(time.Now().UnixNano()) }

// troubled says whether Redis has been away so recently that a missing
// subscriber may just not be back yet.
func (b *Bus) troubled() bool {
	return time.Since(time.Unix(0, b.trouble.Load())) < 2*time.Second
}

// linkDown and linkUp are called by the keeper alone: the handler gets the changes in the order they happen in.
func (b *Bus) linkDown(why error) {
	if b.up.CompareAndSwap(true, false) {
		b.counters.LinkDowns.Add(1)
		b.log.Warn("bus link is down", "err", why)
		// Whatever was claimed and joined must be claimed and joined again. Until it is, nobody is to look for it (sample):
		// what has been told to be lost once is not lost anew every second.
		b.mu.Lock()
		clear(b.held)
		b.missed = false
		b.mu.Unlock()
		b.queue.PutLink(false)
		b.wakeLinks()
	}
}

func (b *Bus) linkUp() {
	if b.up.CompareAndSwap(false, true) {
		b.log.Info("bus link is up")
		b.queue.PutLink(true)
		b.wakeLinks()
		b.records.wake()
	}
}

// refresh renews now and waits for it, so that the view is newer than the call.
func (b *Bus) refresh(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case b.refreshes <- answer:
	case <-ctx.Done():
		return ctx.Err()
	case <-b.ctx.Done():
		return bus.ErrClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-b.ctx.Done():
		return bus.ErrClosed
	}
}

// kickKeeper asks for a renewal soon.
func (b *Bus) kickKeeper() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// nodeList is Redis' answer to a renewal.
type nodeList struct {
	now     time.Duration // Redis' clock since 1970
	fresh   bool          // this node was not listed, or its lease had ended
	entries map[bus.NodeID]listed
}

type listed struct {
	deadline time.Duration // Redis' clock since 1970
	term     uint64
	info     bus.NodeInfo
}

// nodeEntry is what a node writes of itself.
type nodeEntry struct {
	Term uint64       `json:"term"`
	Info bus.NodeInfo `json:"info"`
}

func (k *keeper) renew() (nodeList, error) {
	b := k.b
	b.mu.Lock()
	info := b.info
	b.mu.Unlock()
	entry, err := json.Marshal(nodeEntry{k.term, info})
	if err != nil {
		return nodeList{}, fmt.Errorf("node info: %w", err)
	}
	ctx, cancel := context.WithTimeout(b.ctx, ioTimeout*3/4)
	defer cancel()
	asked := time.Now()
	answer, err := b.scripts.renew.Exec(ctx, b.pub, []string{b.keys.nodes()},
		[]string{string(b.self), string(entry), millis(leaseTime), millis(nodesTTL)}).AsStrSlice()
	if err != nil {
		return nodeList{}, noLink(ctx, err)
	}
	if len(answer) < 2 {
		return nodeList{}, fmt.Errorf("renew lease: answer of %d parts", len(answer))
	}
	micros, err := strconv.ParseInt(answer[0], 10, 64)
	if err != nil {
		return nodeList{}, fmt.Errorf("renew lease: time of Redis: %w", err)
	}
	list := nodeList{
		now:     time.Duration(micros) * time.Microsecond,
		fresh:   answer[1] == "1",
		entries: make(map[bus.NodeID]listed, len(answer)/2),
	}
	b.followClock(time.UnixMicro(micros), asked)
	b.number(uint64(max(micros, 0)))
	parsed := make(map[string]parsedEntry, len(list.entries))
	for i := 2; i+1 < len(answer); i += 2 {
		id := answer[i]
		deadline, raw, _ := strings.Cut(answer[i+1], "|")
		ms, err := strconv.ParseInt(deadline, 10, 64)
		if err != nil {
			continue
		}
		p := k.parsed[id]
		if p.raw != raw {
			p = parsedEntry{raw: raw}
			if err := json.Unmarshal([]byte(raw), &p.entry); err != nil {
				b.log.Warn("entry of a node not understood", "node", id, "err", err)
				continue
			}
			p.entry.Info.ID = bus.NodeID(id)
			p.entry.Info.Name = p.entry.Info.ID.Name()
		}
		parsed[id] = p
		list.entries[bus.NodeID(id)] = listed{time.Duration(ms) * time.Millisecond, p.entry.Term, p.entry.Info}
	}
	k.parsed = parsed
	return list, nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// seen is what this node knows of a live one.
type seen struct {
	info     bus.NodeInfo
	term     uint64
	deadline time.Duration // Redis' clock
	until    time.Time     // our clock: when the lease as known ends
}

// look takes a list over. A node leaves the view when its lease as known here
// has ended, or when it has withdrawn; not because Redis has lost the list, and
// not in the first moment after Redis was away.
func (b *Bus) look(list nodeList, asked time.Time, lost bool) {
	now := time.Now()
	b.mu.Lock()
	before := b.nodesLocked()
	if lost {
		b.lossAt = asked
	}
	if !b.lookedAt.IsZero() && now.Sub(b.lookedAt) > 3*renewEvery {
		// Others have been as blind, and need a moment to be back.
		b.graceEnd = now.Add(graceTime)
	}
	b.lookedAt = now
	grace := now.Before(b.graceEnd)
	forgetful := grace || now.Sub(b.lossAt) < leaseTime+renewEvery
	for id, e := range list.entries {
		// A deadline far away is from before Redis' clock was set back; who lives writes another at once.
		if e.deadline > list.now && e.deadline <= list.now+2*leaseTime {
			b.view[id] = &seen{e.info, e.term, e.deadline, now.Add(e.deadline - list.now)}
		}
	}
	for id, s := range b.view {
		_, there := list.entries[id]
		if now.After(s.until) && !grace || !there && !forgetful {
			delete(b.view, id)
		}
	}
	after := b.nodesLocked()
	for id, l := range b.peers {
		if s := b.view[id]; s != nil {
			l.nodeSeen(s)
		} else if l.nodeGone(asked, now) {
			delete(b.peers, id)
		}
	}
	b.mu.Unlock()
	if !slices.EqualFunc(before, after, func(x, y bus.NodeInfo) bool { return x.ID == y.ID && x.Draining == y.Draining }) {
		b.queue.PutNodes(after)
	}
}

// nodesLocked is called with mu.
func (b *Bus) nodesLocked() []bus.NodeInfo {
	infos := make([]bus.NodeInfo, 0, len(b.view))
	for _, s := range b.view {
		infos = append(infos, s.info)
	}
	slices.SortFunc(infos, func(x, y bus.NodeInfo) int { return strings.Compare(string(x.ID), string(y.ID)) })
	return infos
}

// Nodes returns the live nodes.
func (b *Bus) Nodes() []bus.NodeInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodesLocked()
}

// Announce replaces what others see of this node.
func (b *Bus) Announce(ctx context.Context, info bus.NodeInfo) error {
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	defer cancel()
	b.mu.Lock()
	drains := info.Draining != b.info.Draining
	info.ID, info.Name, info.Started = b.self, b.info.Name, b.info.Started
	if info.Protocol == 0 {
		info.Protocol = bus.Protocol
	}
	b.info = info
	b.mu.Unlock()
	if err := b.refresh(ctx); err != nil {
		return fmt.Errorf("announce: %w", noLink(ctx, err))
	}
	if drains {
		b.tellNodes()
	}
	return nil
}

// tellNodes makes the others look at the list at once.
func (b *Bus) tellNodes() {
	if _, err := b.publish(b.keys.nodesChannel(), string(b.self)); err != nil {
		b.log.Debug("nodes not told of a change; they will see it at their next renewal", "err", err)
	}
}

// withdraw takes this node off the list.
func (b *Bus) withdraw() {
	ctx, cancel := context.WithTimeout(context.Background(), ioTimeout)
	defer cancel()
	err := b.pub.Do(ctx, b.pub.B().Hdel().Key(b.keys.nodes()).Field(string(b.self)).Build()).Error()
	if err != nil {
		b.log.Warn("node not withdrawn; it counts until its lease ends", "err", err)
		return
	}
	b.tellNodes()
}
