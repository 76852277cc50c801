// Package memory is the bus within one process: what a node alone uses, and
// several nodes of one process in tests. Nothing of it leaves the process; only
// records reach a disk, through the store a node is opened with.
package memory

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"callbox/bus"
	"callbox/bus/internal/events"
)

// DefaultLease is how long a node that was cut off still counts as live.
const DefaultLease = 4 * time.Second

// Network is what the nodes of one process share.
//
// Locks, in this order: mu, then a node's queue. Neither is held while a
// handler or a disk is at work.
type Network struct {
	lease time.Duration

	// turn is held by the one goroutine that changes records; a channel,
	// because disks are written meanwhile.
	turn    chan struct{}
	records *bus.Store // in memory: the sum of the nodes' stores

	mu        sync.Mutex
	nodes     map[bus.NodeID]*Bus // started, neither closed nor killed
	opened    map[bus.NodeID]*Bus // for records: opened, not closed
	peers     map[string]*entry
	sweepAt   int
	rooms     map[string]*room
	lastEpoch uint64
}

// NewNetwork makes a network without nodes.
func NewNetwork() *Network {
	records, err := bus.OpenStore("")
	if err != nil {
		panic("bus: a store without a directory cannot fail to open: " + err.Error())
	}
	return &Network{
		lease:   DefaultLease,
		turn:    make(chan struct{}, 1),
		records: records,
		nodes:   map[bus.NodeID]*Bus{},
		opened:  map[bus.NodeID]*Bus{},
		peers:   map[string]*entry{},
		sweepAt: 1024,
		rooms:   map[string]*room{},
	}
}

// Config is what a node needs.
type Config struct {
	Name  string     // "" is "solo"
	Store *bus.Store // where records are kept; nil: in memory only
	Log   *slog.Logger
}

// Open adds a node. It is seen by others once it is started.
func (n *Network) Open(c Config) (*Bus, error) {
	if c.Name == "" {
		c.Name = "solo"
	}
	if err := bus.CheckNodeName(c.Name); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Store == nil {
		store, err := bus.OpenStore("")
		if err != nil {
			return nil, err
		}
		c.Store = store
	}
	b := &Bus{
		net:   n,
		self:  bus.NewNodeID(c.Name),
		store: c.Store,
		log:   c.Log,
		done:  make(chan struct{}),
	}
	b.info = bus.NodeInfo{ID: b.self, Name: c.Name, Started: time.Now(), Protocol: bus.Protocol}
	b.queue.Init()
	if err := n.exchange(b); err != nil {
		return nil, fmt.Errorf("records of node %s: %w", c.Name, err)
	}
	return b, nil
}

// exchange brings the node's records and the network's to the newer of both.
func (n *Network) exchange(b *Bus) error {
	ctx := context.Background()
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	others := n.openedNodes()
	for _, bucket := range b.store.Buckets() {
		newer, err := n.records.Merge(ctx, bucket, b.store.All(bucket))
		if err != nil {
			return err
		}
		if len(newer) == 0 {
			continue
		}
		for _, o := range others {
			o.adopt(bucket, n.records.All(bucket))
		}
	}
	for _, bucket := range n.records.Buckets() {
		if _, err := b.store.Merge(ctx, bucket, n.records.All(bucket)); err != nil {
			return err
		}
	}
	n.mu.Lock()
	n.opened[b.self] = b
	n.mu.Unlock()
	return nil
}

func (n *Network) openedNodes() []*Bus {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]*Bus, 0, len(n.opened))
	for _, b := range n.opened {
		list = append(list, b)
	}
	return list
}

// live says whether a node's entries count. Called with mu.
func (n *Network) live(id bus.NodeID) bool {
	b := n.nodes[id]
	return b != nil && !b.expired
}

// list returns the live nodes' infos. Called with mu.
func (n *Network) list() []bus.NodeInfo {
	infos := make([]bus.NodeInfo, 0, len(n.nodes))
	for _, b := range n.nodes {
		if !b.expired {
			infos = append(infos, b.info)
		}
	}
	slices.SortFunc(infos, func(a, b bus.NodeInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return infos
}

// tellNodes tells every node that the list has changed. Called with mu.
func (n *Network) tellNodes() {
	infos := n.list()
	for _, b := range n.nodes {
		b.queue.PutNodes(infos)
	}
}

// Kill ends a node as a crash would: without a goodbye, with nothing
// delivered or handed back to it any more. Its Close still has to be called.
func (n *Network) Kill(id bus.NodeID) {
	n.mu.Lock()
	b := n.nodes[id]
	n.mu.Unlock()
	if b != nil {
		b.end()
	}
}

// Cut separates a node from the others until Heal: its calls fail with ErrNoLink and
// it receives nothing; once its lease is over it counts as gone.
func (n *Network) Cut(id bus.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.nodes[id]
	if b == nil || b.cut {
		return
	}
	b.cut = true
	b.counters.LinkDowns.Add(1)
	b.queue.Hold(time.Now().Add(n.lease))
}

// Heal ends a cut.
func (n *Network) Heal(id bus.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.nodes[id]
	if b == nil || !b.cut {
		return
	}
	b.cut = false
	if b.expired {
		b.expired = false
		n.tellNodes()
	}
	b.queue.Release()
}

// Forget loses the directory and the rooms, as a Redis that was emptied does. Nodes that are not cut off see it at once.
func (n *Network) Forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peers, n.rooms = map[string]*entry{}, map[string]*room{}
	for _, b := range n.nodes {
		if !b.cut {
			b.counters.LinkDowns.Add(1)
			b.queue.PutLink(false)
			b.queue.PutLink(true)
		}
	}
}

// expire ends the lease of a node that is cut off; its own goroutine calls it.
func (n *Network) expire(b *Bus) {
	n.mu.Lock()
	if !b.cut || b.expired || n.nodes[b.self] != b {
		n.mu.Unlock()
		return
	}
	b.expired = true
	n.tellNodes()
	n.mu.Unlock()
	n.handBack(b.self, b.queue.TakeMessages())
}

// handBack returns the undelivered messages in list to their senders.
func (n *Network) handBack(to bus.NodeID, list []events.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range list {
		if m.Kind != events.Message {
			continue
		}
		if sender := n.nodes[m.Node]; sender != nil {
			sender.queue.PutLost(to, m.Data, bus.ErrNodeGone)
		}
	}
}
