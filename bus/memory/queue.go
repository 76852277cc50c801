package memory

import (
	"sync"
	"time"

	"callbox/bus"
)

// What may be on its way from one node to another.
const (
	maxPending      = 16384
	maxPendingBytes = 16 << 20
)

type eventKind uint8

const (
	eventMessage eventKind = iota
	eventLost
	eventChanged
	eventNodes
	eventLink
)

type event struct {
	kind   eventKind
	node   bus.NodeID // sender of a message, destination of a lost one
	data   []byte
	err    error
	change change
	up     bool
}

type change struct{ bucket, key string }

type pending struct{ messages, bytes int }

// queue holds what a node's handler is still to be told, in order. Messages
// are bounded by sender, lost ones by what the node may have under way, the
// rest by merging.
type queue struct {
	wake chan struct{} // one token: something is there

	mu      sync.Mutex
	events  []event
	ended   bool
	held    bool      // the node is cut off: messages stay
	until   time.Time // held: when the lease ends
	pending map[bus.NodeID]pending
	changes map[change]bool
	nodes   []bus.NodeInfo // the newest list not told yet
	told    bool           // a nodes event is queued
}

func (q *queue) init() {
	q.wake = make(chan struct{}, 1)
	q.pending = map[bus.NodeID]pending{}
	q.changes = map[change]bool{}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) message(from bus.NodeID, data []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return bus.ErrNodeGone
	}
	p := q.pending[from]
	if p.messages >= maxPending || p.bytes+len(data) > maxPendingBytes {
		return bus.ErrBusy
	}
	q.pending[from] = pending{p.messages + 1, p.bytes + len(data)}
	q.push(event{kind: eventMessage, node: from, data: data})
	return nil
}

// push is called with the lock.
func (q *queue) push(e event) {
	if q.ended {
		return
	}
	q.events = append(q.events, e)
	q.signal()
}

func (q *queue) lost(to bus.NodeID, data []byte, why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(event{kind: eventLost, node: to, data: data, err: why})
}

func (q *queue) changed(bucket, key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := change{bucket, key}
	if !q.changes[c] && !q.ended {
		q.changes[c] = true
		q.push(event{kind: eventChanged, change: c})
	}
}

func (q *queue) nodesChanged(infos []bus.NodeInfo) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nodes = infos
	if !q.told {
		q.told = true
		q.push(event{kind: eventNodes})
	}
}

func (q *queue) hold(until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held, q.until = true, until
	q.push(event{kind: eventLink, up: false})
}

func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = false
	q.push(event{kind: eventLink, up: true})
}

// take returns what can be told now; while held, messages stay behind. until
// is when to call expire, zero when not held.
func (q *queue) take() (events []event, nodes []bus.NodeInfo, until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, q.events = q.events, nil
	if q.held {
		until = q.until
		now := events[:0:0]
		for _, e := range events {
			if e.kind == eventMessage {
				q.events = append(q.events, e)
			} else {
				now = append(now, e)
			}
		}
		events = now
	}
	for _, e := range events {
		switch e.kind {
		case eventMessage:
			q.delivered(e)
		case eventChanged:
			delete(q.changes, e.change)
		case eventNodes:
			nodes, q.told = q.nodes, false
		}
	}
	return events, nodes, until
}

// delivered is called with the lock.
func (q *queue) delivered(e event) {
	p := q.pending[e.node]
	p.messages--
	p.bytes -= len(e.data)
	if p.messages == 0 {
		delete(q.pending, e.node)
	} else {
		q.pending[e.node] = p
	}
}

// takeMessages removes the messages only.
func (q *queue) takeMessages() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	var messages, rest []event
	for _, e := range q.events {
		if e.kind == eventMessage {
			q.delivered(e)
			messages = append(messages, e)
		} else {
			rest = append(rest, e)
		}
	}
	q.events = rest
	return messages
}

// end closes the queue and returns the messages in it.
func (q *queue) end() []event {
	messages := q.takeMessages()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.events {
		if e.kind == eventMessage {
			messages = append(messages, e)
		}
	}
	q.ended, q.events = true, nil
	return messages
}
