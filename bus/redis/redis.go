// Package redis is the bus between processes: a bus.Bus over Redis 6.2 or
// newer, alone, behind Sentinel or as a Redis Cluster. Redis carries the
// messages (publish/subscribe) and holds the directory, the rooms, the list of
// nodes and a copy of the records; none of it need survive Redis, which may be
// restarted or emptied at any time.
//
// A node has one connection that publishes and runs commands and one that
// subscribes (on a Redis Cluster: as many as there are shards concerned).
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"callbox/bus"
	"callbox/bus/internal/events"
)

const (
	leaseTime  = 4 * time.Second        // how long a node counts after its last renewal
	renewEvery = 800 * time.Millisecond // so that Nodes is at most a second old
	graceTime  = 2 * time.Second        // for others, after Redis was away from this node
	ioTimeout  = 2 * time.Second        // for one answer of Redis
	callTime   = 5 * time.Second        // for a whole call, whatever its context says
)

// Config is what a node needs.
type Config struct {
	URL    string     // see Open
	Name   string     // the node's name, letters, digits and -_.
	Prefix string     // of every key and channel; "" is "callbox"
	Secret []byte     // seals records and parked states in Redis; nil: they are readable there
	Store  *bus.Store // this node's copy of the records; nil: in memory only
	Log    *slog.Logger

	dial func(ctx context.Context, address string) (net.Conn, error) // tests put a proxy in between
}

// Bus is one node.
type Bus struct {
	self    bus.NodeID
	cluster bool
	keys    keys
	sealer  sealer
	store   *bus.Store
	log     *slog.Logger
	pub     rueidis.Client // publishes and runs commands; subscriptions dedicate a connection of their own
	scripts *scripts

	counters bus.Counters
	queue    events.Queue
	handler  bus.Handler // set by Start before any goroutine

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // keep, tell, records: started by Start, awaited by Close
	links  sync.WaitGroup // the links' writers: started by link, awaited by Close

	refreshes chan chan error // asks keep for a renewal now
	kick      chan struct{}   // the same, nobody waits
	up        atomic.Bool     // the link, as the handler was told
	trouble   atomic.Int64    // unix nanoseconds of the last sign of trouble with Redis
	offset    atomic.Int64    // Redis' clock minus ours, nanoseconds
	latest    atomic.Uint64   // the highest epoch, version or time of Redis in microseconds that this node has seen
	term      atomic.Uint64   // of the lease and the subscription
	lease     atomic.Pointer[time.Time]

	// deliver is held while the handler gets a message; before mu and a link's
	// lock. Handlers may call Send meanwhile, never Close.
	deliver sync.Mutex
	current *subscription // guarded by deliver; what others publish to
	deaf    bool          // guarded by deliver: closed

	mu       sync.Mutex // before a link's lock
	state    state
	info     bus.NodeInfo
	view     map[bus.NodeID]*seen
	lossAt   time.Time // when Redis was last seen to have forgotten
	lookedAt time.Time
	graceEnd time.Time
	peers    map[bus.NodeID]*link
	held     map[string]*holding // by peer
	missed   bool                // one of those is gone from Redis, and keep has not told it yet
	records  recordState
}

type state int

const (
	opened state = iota
	started
	closed
)

var _ bus.Bus = (*Bus)(nil)

// Open connects to Redis and brings the records there and in the store to the
// newer of both. The URL is redis://[user:password@]host[:port][/db],
// rediss:// for TLS (?ca=FILE names other authorities than the system's),
// redis+sentinel://host:port,host:port/master or
// redis+cluster://host:port,host:port, and rediss+... of these.
func Open(ctx context.Context, c Config) (*Bus, error) {
	t, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	if err := bus.CheckNodeName(c.Name); err != nil {
		return nil, err
	}
	if c.Prefix == "" {
		c.Prefix = "callbox"
	}
	if len(c.Prefix) > 64 || strings.ContainsAny(c.Prefix, "{}\n ") {
		return nil, fmt.Errorf("bus prefix %q: at most 64 characters, without braces and spaces", c.Prefix)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Store == nil {
		if c.Store, err = bus.OpenStore(""); err != nil {
			return nil, err
		}
	}
	b := &Bus{
		self:      bus.NewNodeID(c.Name),
		cluster:   t.cluster,
		keys:      keys{c.Prefix},
		store:     c.Store,
		log:       c.Log,
		refreshes: make(chan chan error),
		kick:      make(chan struct{}, 1),
		view:      map[bus.NodeID]*seen{},
		peers:     map[bus.NodeID]*link{},
		held:      map[string]*holding{},
	}
	b.store.UseClock(b.redisNow)
	b.scripts = newScripts(t.cluster)
	b.queue.Init()
	b.records.init()
	b.info = bus.NodeInfo{ID: b.self, Name: c.Name, Started: time.Now(), Protocol: bus.Protocol}
	if b.sealer, err = newSealer(c.Secret); err != nil {
		return nil, err
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	opens := &opening{ctx: ctx, next: dialRedis}
	if c.dial != nil {
		opens.next = func(ctx context.Context, address string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return c.dial(ctx, address)
		}
	}
	t.option.DialCtxFn = opens.dial
	err = b.connect(ctx, t)
	opens.done()
	if err == nil && ctx.Err() != nil {
		err = ctx.Err() // and perhaps its connections with it
	}
	if err != nil {
		b.cancel()
		b.hangUp()
		return nil, err
	}
	return b, nil
}

func (b *Bus) connect(ctx context.Context, t target) error {
	unreachable := func(err error) error {
		if errors.Is(ctx.Err(), context.Canceled) {
			return fmt.Errorf("bus: Redis at %s: %w", t.text, ctx.Err())
		}
		return fmt.Errorf("bus: no answer from Redis at %s: %w: start Redis, or correct the bus URL (--bus)", t.text, err)
	}
	var err error
	if b.pub, err = rueidis.NewClient(t.option); err != nil {
		return unreachable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := b.pub.Do(ctx, b.pub.B().Ping().Build()).Error(); err != nil {
		return unreachable(err)
	}
	if !t.cluster {
		info, err := b.pub.Do(ctx, b.pub.B().Info().Section("cluster").Build()).ToString()
		if err == nil && strings.Contains(info, "cluster_enabled:1") {
			return fmt.Errorf("bus: Redis at %s runs as a cluster: use redis+cluster://", t.text)
		}
	}
	if err := b.setClock(ctx); err != nil {
		return unreachable(err)
	}
	if err := b.syncRecords(ctx); err != nil {
		return fmt.Errorf("bus: records in Redis at %s: %w", t.text, err)
	}
	return nil
}

func (b *Bus) hangUp() {
	if b.pub != nil {
		b.pub.Close()
	}
}

// Self is this node's id.
func (b *Bus) Self() bus.NodeID { return b.self }

// Start makes this process a node.
func (b *Bus) Start(h bus.Handler) error {
	b.mu.Lock()
	if b.state != opened {
		b.mu.Unlock()
		return fmt.Errorf("start node %s: %w", b.self, bus.ErrClosed)
	}
	b.state = started
	b.handler = h
	b.mu.Unlock()
	k := &keeper{b: b, term: 1}
	if err := k.round(); err != nil {
		k.hangUp()
		b.mu.Lock()
		b.state = opened
		b.mu.Unlock()
		return fmt.Errorf("start node %s: %w", b.self, err)
	}
	b.up.Store(true)
	b.wg.Add(3)
	go b.tell()
	go k.run()
	go b.keepRecords()
	b.tellNodes()
	return nil
}

// tell calls the handler for everything but messages of other nodes.
func (b *Bus) tell() {
	defer b.wg.Done()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-b.queue.Wake:
		}
		list, nodes, _ := b.queue.Take()
		for _, e := range list {
			if b.ctx.Err() != nil {
				return
			}
			e.Tell(b.handler, &b.counters, nodes)
		}
	}
}

// Close withdraws the node and waits.
func (b *Bus) Close() error {
	b.end(true)
	return nil
}

// end stops everything; without goodbye it is like a crash.
func (b *Bus) end(goodbye bool) {
	b.mu.Lock()
	before := b.state
	b.state = closed
	links := make([]*link, 0, len(b.peers))
	for _, l := range b.peers {
		links = append(links, l)
	}
	b.mu.Unlock()
	if before == closed {
		b.wg.Wait()
		return
	}
	// Nothing more is delivered; receipts for what was go out with the rest.
	b.deliver.Lock()
	b.deaf = true
	b.deliver.Unlock()
	for _, l := range links {
		l.end(goodbye && b.up.Load())
	}
	if !goodbye {
		b.hangUp()
	}
	b.links.Wait() // what was accepted has been published by now
	b.cancel()
	b.wg.Wait() // keep has ended: nothing renews the lease any more
	b.queue.End()
	if goodbye && before == started && b.up.Load() {
		b.withdraw()
	}
	if goodbye {
		b.hangUp()
	}
}

// Send queues a message for another node, or for this one.
func (b *Bus) Send(to bus.NodeID, data []byte) error {
	err := b.send(to, data)
	switch {
	case err == nil:
		b.counters.Published.Add(1)
		return nil
	case errors.Is(err, bus.ErrNodeGone):
		b.counters.RefusedGone.Add(1)
	case errors.Is(err, bus.ErrBusy):
		b.counters.RefusedBusy.Add(1)
	case errors.Is(err, bus.ErrTooLarge):
		b.counters.RefusedLarge.Add(1)
	default:
		b.counters.Closed.Add(1)
	}
	return fmt.Errorf("send %d bytes to %s: %w", len(data), to, err)
}

func (b *Bus) send(to bus.NodeID, data []byte) error {
	if len(data) > bus.MaxMessage {
		return bus.ErrTooLarge
	}
	l, err := b.link(to)
	if err != nil {
		return err
	}
	if l == nil {
		return b.queue.PutMessage(b.self, data)
	}
	return l.put(data)
}

// link returns the link to a node, made at the first need; nil for this node
// itself.
func (b *Bus) link(to bus.NodeID) (*link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != started {
		return nil, bus.ErrClosed
	}
	if to == b.self {
		return nil, nil
	}
	l := b.peers[to]
	if l == nil {
		l = newLink(b, to)
		if s := b.view[to]; s != nil {
			l.term = s.term
		}
		b.peers[to] = l
		b.links.Add(1)
		go l.run()
	}
	return l, nil
}

// ready says whether calls make sense now, and bounds their time.
func (b *Bus) ready(ctx context.Context) (context.Context, context.CancelFunc, error) {
	b.mu.Lock()
	s := b.state
	b.mu.Unlock()
	switch {
	case s != started:
		return nil, nil, bus.ErrClosed
	case !b.up.Load():
		return nil, nil, bus.ErrNoLink
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	return ctx, cancel, nil
}

// Stats returns the node's counters.
func (b *Bus) Stats() bus.Stats {
	s := b.counters.Stats()
	s.LinkUp = b.up.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Nodes = len(b.view)
	for _, h := range b.held {
		if h.epoch > 0 {
			s.Peers++
		}
	}
	return s
}

// jitter is a random time between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
