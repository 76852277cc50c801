package signal

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"callbox/bus"

	"github.com/coder/websocket"
)

// Subprotocol is the WebSocket subprotocol of callbox.v1.
const Subprotocol = "callbox.v1"

// Bus is the part of bus.Bus that the hub uses.
type Bus interface {
	bus.Messenger
	bus.Directory
	bus.Rooms
	bus.Nodes
}

// Config is what a hub needs.
type Config struct {
	Bus    Bus // started by the caller, with the hub's Message, Lost, NodesChanged and Link behind its Handler
	Limits Limits
	Log    *slog.Logger // nil: nothing is logged

	// Watch is told who comes to rooms and goes. It must not block and not call the hub. All nodes of a cluster watch, or none.
	Watch func(RoomEvent)
}

// Hub holds the peers of one node. Its methods Message, Lost, NodesChanged and
// Link are the hub's part of a bus.Handler.
type Hub struct {
	bus     Bus
	self    bus.NodeID
	limits  Limits
	log     *slog.Logger
	stats   counters
	watch   func(RoomEvent) // nil: nobody watches
	roll    roll
	buffers bufferPool
	queued  atomic.Int64 // bytes in the queues of all sessions
	clock   atomic.Int64 // unix nanoseconds, set by the ticker

	ctx    context.Context // of calls of the bus; ends when Close gives up on them
	cancel context.CancelFunc
	work   chan struct{} // bounds the calls of the bus that no client waits for

	turnedAway chan struct{} // bounds the connections that are opened only to be told that there are too many

	life    sync.Mutex // a leaf: guards stopped, and wg.Add against Wait
	stopped bool
	wg      sync.WaitGroup
	stop    chan struct{} // closed by Close: ends the ticker

	mu        sync.RWMutex
	closed    bool // no new connections
	linkDown  bool
	conns     map[*conn]struct{}
	holds     map[string]int // connections of each logged-in user
	sessions  map[string]*session
	arriving  map[string]*session              // those of sessions whose state is on the way
	users     map[string]map[*session]struct{} // who may be called, by name
	rooms     map[string]*room
	moved     map[string]*forward
	movedFrom map[string]map[string]struct{} // peers in moved, by the rooms they are in
	lookups   map[string]*lookup
	owed      []farewell

	waiting      map[string]*waiting // messages for names that nobody holds
	waitingCount int
	waitingBytes int
	places       map[string]bus.NodeID // where names were found on other nodes
	groups       map[string]uint64     // of matchbox rooms: the group that is being filled
}

// backgroundCalls of the bus at one time.
const backgroundCalls = 16

// New makes a hub. Connections may be served once the bus is started.
func New(cfg Config) *Hub {
	h := &Hub{
		bus:        cfg.Bus,
		self:       cfg.Bus.Self(),
		limits:     cfg.Limits.withDefaults(),
		log:        cfg.Log,
		watch:      cfg.Watch,
		work:       make(chan struct{}, backgroundCalls),
		turnedAway: make(chan struct{}, backgroundCalls),
		stop:       make(chan struct{}),
		conns:      make(map[*conn]struct{}),
		holds:      make(map[string]int),
		sessions:   make(map[string]*session),
		arriving:   make(map[string]*session),
		users:      make(map[string]map[*session]struct{}),
		rooms:      make(map[string]*room),
		moved:      make(map[string]*forward),
		movedFrom:  make(map[string]map[string]struct{}),
		lookups:    make(map[string]*lookup),
		waiting:    make(map[string]*waiting),
		places:     make(map[string]bus.NodeID),
		groups:     make(map[string]uint64),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.clock.Store(time.Now().UnixNano())
	h.spawn(h.ticker)
	return h
}

// spawn runs f in a goroutine that Close waits for. False: the hub has stopped, f does not run.
func (h *Hub) spawn(f func()) bool {
	h.life.Lock()
	defer h.life.Unlock()
	if h.stopped {
		return false
	}
	h.wg.Go(f)
	return true
}

// background is spawn for calls of the bus, a few at a time.
func (h *Hub) background(f func(ctx context.Context)) {
	h.spawn(func() {
		select {
		case h.work <- struct{}{}:
		case <-h.ctx.Done():
			return
		}
		defer func() { <-h.work }()
		ctx, cancel := h.call()
		defer cancel()
		f(ctx)
	})
}

// call is the context for one call of the bus.
func (h *Hub) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.ctx, h.limits.BusTimeout)
}

// Serve upgrades the request to callbox.v1, hands the connection to the hub and
// returns: from then on the hub owns it, and Close waits for it. The caller has
// checked the origin and who it is. What cannot be upgraded is answered here.
// id.ICE outlives the request.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, id Identity) {
	if checkText(id.User, maxName) != textOK {
		refuseUpgrade(w, http.StatusForbidden, "bad-name", "the user name is empty, too long or has control characters")
		return
	}
	if !offers(r, Subprotocol) {
		refuseUpgrade(w, http.StatusBadRequest, "bad-subprotocol", "the WebSocket subprotocol "+Subprotocol+" is required")
		return
	}
	h.accept(w, r, id, callbox1{}, []string{Subprotocol}, (*conn).run)
}

// accept upgrades for one protocol and starts its reader.
func (h *Hub) accept(w http.ResponseWriter, r *http.Request, id Identity, p protocol, subprotocols []string, run func(*conn)) {
	still := id.Still
	id.Still = nil // it is not needed for long, and may hold the request
	c := &conn{hub: h, proto: p, id: id}
	c.lastRead.Store(h.clock.Load())
	switch h.admit(c) {
	case admitted:
	case userFull:
		w.Header().Set("Retry-After", "10")
		refuseUpgrade(w, http.StatusTooManyRequests, "too-many-connections", "this user holds as many connections as one may")
		return
	case nodeFull:
		h.mu.RLock()
		closed := h.closed
		h.mu.RUnlock()
		if full, ok := p.(fuller); ok && !closed && full.full(h, w, r) {
			return
		}
		w.Header().Set("Retry-After", "1")
		refuseUpgrade(w, http.StatusServiceUnavailable, "unavailable", "this node takes no more connections")
		return
	}
	ws, err := websocket.Accept(hijacker{w, c}, r, &websocket.AcceptOptions{
		Subprotocols:       subprotocols,
		InsecureSkipVerify: true, // the caller has checked the origin
		CompressionMode:    websocket.CompressionDisabled,
		OnPingReceived:     c.pingReceived,
		OnPongReceived:     c.pongReceived,
	})
	if err != nil {
		h.dismiss(c)
		return
	}
	ws.SetReadLimit(int64(h.limits.FrameBytes))
	c.ws = ws
	c.upgraded.Store(true)
	// Revoke sees the connection from here on; what was revoked before is seen now.
	if still != nil && !still() {
		c.shutdown(closeAuth, "revoked")
	}
	if !h.spawn(func() { run(c) }) {
		_ = ws.CloseNow()
		h.dismiss(c)
		return
	}
	h.stats.accepted.Add(1)
	h.stats.of(p).accepted.Add(1)
	h.mu.RLock()
	closed := h.closed
	h.mu.RUnlock()
	if closed { // since it was admitted
		c.shutdown(closeAway, "this node is going away")
	}
}

// admission is how admit answers.
type admission int

const (
	admitted admission = iota
	nodeFull
	userFull
)

// admit counts a connection in, before anything is allocated for it.
func (h *Hub) admit(c *conn) admission {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.conns) >= h.limits.Connections {
		return nodeFull
	}
	if c.id.Login {
		if h.holds[c.id.User] >= h.limits.ConnectionsPerUser {
			return userFull
		}
		c.holder = c.id.User
		h.holds[c.holder]++
	}
	h.conns[c] = struct{}{}
	return admitted
}

func (h *Hub) dismiss(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.conns[c]; !ok {
		return
	}
	delete(h.conns, c)
	if c.holder == "" {
		return
	}
	if h.holds[c.holder]--; h.holds[c.holder] == 0 {
		delete(h.holds, c.holder)
	}
}

// offers says whether the client speaks the subprotocol.
func offers(r *http.Request, want string) bool {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		if slices.ContainsFunc(strings.Split(line, ","), func(p string) bool {
			return strings.EqualFold(strings.TrimSpace(p), want)
		}) {
			return true
		}
	}
	return false
}

// Revoke ends every session whose identity matches, connected or held, and
// says how many there were. Their clients are closed with 4001.
func (h *Hub) Revoke(match func(Identity) bool) int {
	h.mu.RLock()
	all := make([]*session, 0, len(h.sessions))
	for _, s := range h.sessions {
		all = append(all, s)
	}
	type stranger struct {
		c  *conn
		id Identity
	}
	var unknown []stranger // connections without a session yet
	for c := range h.conns {
		if c.s.Load() == nil && !c.id.Open {
			unknown = append(unknown, stranger{c, c.id})
		}
	}
	h.mu.RUnlock()
	n := 0
	for _, u := range unknown {
		// Who a connection belongs to is set before it is counted in, or with the lock held.
		c := u.c
		if !match(u.id) {
			continue
		}
		n++
		// One that is just being upgraded asks afterwards whether its identity still holds.
		if c.upgraded.Load() {
			c.shutdown(closeAuth, "revoked")
		}
	}
	for _, s := range all {
		if id := s.identity(); !id.Open && match(id) && h.end(s, reasonLeft, closeAuth, "revoked") {
			n++
		}
	}
	return n
}

// liveNodes are the nodes the bus counts as live. Not to be called with a lock.
func (h *Hub) liveNodes() map[bus.NodeID]bool {
	nodes := h.bus.Nodes()
	live := make(map[bus.NodeID]bool, len(nodes)+1)
	for i := range nodes {
		live[nodes[i].ID] = true
	}
	live[h.self] = true
	return live
}
