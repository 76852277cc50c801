// Package events holds what a node's handler is still to be told. The bus
// implementations share it; it starts no goroutine and knows no transport.
package events

import (
	"errors"
	"sync"
	"time"

	"callbox/bus"
)

// What may be on its way from one node to another.
const (
	maxPending      = 16384
	maxPendingBytes = 16 << 20
)

// Kind says which method of the handler an event is for.
type Kind uint8

// The kinds; Nodes takes its list from Take.
const (
	Message Kind = iota
	Lost
	Changed
	Nodes
	Link
)

// Event is one call of a handler to come.
type Event struct {
	Kind   Kind
	Node   bus.NodeID // sender of a message, destination of a lost one
	Data   []byte
	Err    error
	Change Change
	Up     bool
}

// Change names a record.
type Change struct{ Bucket, Key string }

type pending struct{ messages, bytes int }

// Queue holds what a node's handler is still to be told, in order. Messages
// are bounded by sender, lost ones by what the node may have under way, the
// rest by merging.
type Queue struct {
	Wake chan struct{} // one token: something is there

	mu      sync.Mutex
	events  []Event
	ended   bool
	held    bool      // the node is cut off: messages stay
	until   time.Time // held: when the lease ends
	pending map[bus.NodeID]pending
	changes map[Change]bool
	nodes   []bus.NodeInfo // the newest list not told yet
	told    bool           // an event for it is queued
}

// Init makes the zero value ready.
func (q *Queue) Init() {
	q.Wake = make(chan struct{}, 1)
	q.pending = map[bus.NodeID]pending{}
	q.changes = map[Change]bool{}
}

func (q *Queue) signal() {
	select {
	case q.Wake <- struct{}{}:
	default:
	}
}

// PutMessage adds a message, or returns ErrBusy or ErrNodeGone (ended).
func (q *Queue) PutMessage(from bus.NodeID, data []byte) error {
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
	q.push(Event{Kind: Message, Node: from, Data: data})
	return nil
}

// push is called with the lock.
func (q *Queue) push(e Event) {
	if q.ended {
		return
	}
	q.events = append(q.events, e)
	q.signal()
}

// PutLost adds a message that comes back.
func (q *Queue) PutLost(to bus.NodeID, data []byte, why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(Event{Kind: Lost, Node: to, Data: data, Err: why})
}

// PutChanged adds a change, unless the same is still to be told.
func (q *Queue) PutChanged(bucket, key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := Change{bucket, key}
	if !q.changes[c] && !q.ended {
		q.changes[c] = true
		q.push(Event{Kind: Changed, Change: c})
	}
}

// PutNodes replaces the list of nodes still to be told.
func (q *Queue) PutNodes(infos []bus.NodeInfo) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nodes = infos
	if !q.told {
		q.told = true
		q.push(Event{Kind: Nodes})
	}
}

// Hold keeps messages back until Release and tells that the link is down.
func (q *Queue) Hold(until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held, q.until = true, until
	q.push(Event{Kind: Link, Up: false})
}

// PutLink adds a change of the link.
func (q *Queue) PutLink(up bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(Event{Kind: Link, Up: up})
}

// Release ends Hold and tells that the link is up.
func (q *Queue) Release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = false
	q.push(Event{Kind: Link, Up: true})
}

// Take returns what can be told now; while held, messages stay behind. until
// is when to call expire, zero when not held.
func (q *Queue) Take() (events []Event, nodes []bus.NodeInfo, until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, q.events = q.events, nil
	if q.held {
		until = q.until
		now := events[:0:0]
		for _, e := range events {
			if e.Kind == Message {
				q.events = append(q.events, e)
			} else {
				now = append(now, e)
			}
		}
		events = now
	}
	for _, e := range events {
		switch e.Kind {
		case Message:
			q.delivered(e)
		case Changed:
			delete(q.changes, e.Change)
		case Nodes:
			nodes, q.told = q.nodes, false
		}
	}
	return events, nodes, until
}

// delivered is called with the lock.
func (q *Queue) delivered(e Event) {
	p := q.pending[e.Node]
	p.messages--
	p.bytes -= len(e.Data)
	if p.messages == 0 {
		delete(q.pending, e.Node)
	} else {
		q.pending[e.Node] = p
	}
}

// TakeMessages removes the messages only.
func (q *Queue) TakeMessages() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	var messages, rest []Event
	for _, e := range q.events {
		if e.Kind == Message {
			q.delivered(e)
			messages = append(messages, e)
		} else {
			rest = append(rest, e)
		}
	}
	q.events = rest
	return messages
}

// End closes the queue and returns the messages in it.
func (q *Queue) End() []Event {
	messages := q.TakeMessages()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.events {
		if e.Kind == Message {
			messages = append(messages, e)
		}
	}
	q.ended, q.events = true, nil
	return messages
}

// Tell calls the handler and counts.
func (e Event) Tell(h bus.Handler, c *bus.Counters, nodes []bus.NodeInfo) {
	switch e.Kind {
	case Message:
		c.Received.Add(1)
		h.Message(e.Node, e.Data)
	case Lost:
		if errors.Is(e.Err, bus.ErrNoLink) {
			c.LostLink.Add(1)
		} else {
			c.LostGone.Add(1)
		}
		h.Lost(e.Node, e.Data, e.Err)
	case Changed:
		h.Changed(e.Change.Bucket, e.Change.Key)
	case Nodes:
		h.NodesChanged(nodes)
	case Link:
		h.Link(e.Up)
	}
}
