package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"callbox/bus"
	"callbox/bus/memory"
	"callbox/signal"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// node is a real hub behind a real HTTP server, whose connections a test can cut.
type node struct {
	t    *testing.T
	bus  bus.Bus
	hub  *signal.Hub
	http *http.Server
	addr string
	once sync.Once

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu
	shut  bool                  // guarded by mu: new connections are closed at once
}

type handler struct{ *signal.Hub }

func (handler) Changed(string, string) {}

// newNode starts a node alone.
func newNode(t *testing.T, limits signal.Limits) *node {
	t.Helper()
	b, err := memory.NewNetwork().Open(memory.Config{Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	return startNode(t, b, limits)
}

func startNode(t *testing.T, b bus.Bus, limits signal.Limits) *node {
	t.Helper()
	n := &node{t: t, bus: b, hub: signal.New(signal.Config{Bus: b, Limits: limits}), conns: make(map[net.Conn]struct{})}
	if err := b.Start(handler{n.hub}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	n.http = &http.Server{Handler: http.HandlerFunc(n.serve), ReadHeaderTimeout: patience}
	served := make(chan struct{})
	go func() { defer close(served); _ = n.http.Serve(cutter{l, n}) }()
	t.Cleanup(func() { n.stop(); <-served })
	return n
}

// stop ends the node in order.
func (n *node) stop() {
	n.once.Do(func() {
		_ = n.hub.Close()
		_ = n.http.Close()
		_ = n.bus.Close()
	})
}

// serve takes the identity from the query: a test is any user it likes.
func (n *node) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("user") == "" {
		http.Error(w, "who", http.StatusUnauthorized)
		return
	}
	id := signal.Identity{User: q.Get("user"), Room: q.Get("room"), Login: q.Get("login") != "", Session: q.Get("user")}
	if seconds, err := strconv.Atoi(q.Get("ice")); err == nil {
		id.ICE = func(room string) (signal.ICE, error) {
			return signal.ICE{
				Servers:    []signal.ICEServer{{URLs: []string{"turn:192.0.2.1:8080?room=" + room}, Username: "u", Credential: "c"}},
				TTLSeconds: seconds, ExpiresAt: time.Now().Add(time.Duration(seconds) * time.Second),
			}, nil
		}
	}
	n.hub.Serve(w, r, id)
}

func (n *node) url(user, more string) string {
	return "http://" + n.addr + "/ws?user=" + url.QueryEscape(user) + more
}

// cut breaks every connection without a word.
func (n *node) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Close()
		delete(n.conns, c)
	}
}

// isolate cuts, and goes on doing so with whatever comes.
func (n *node) isolate(on bool) {
	n.mu.Lock()
	n.shut = on
	n.mu.Unlock()
	if on {
		n.cut()
	}
}

type cutter struct {
	net.Listener
	n *node
}

func (c cutter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.n.shut {
		_ = conn.Close()
	} else {
		c.n.conns[conn] = struct{}{}
	}
	return conn, nil
}

// user is a client under test, and what it has been told.
type user struct {
	*Client
	t *testing.T
}

func dial(t *testing.T, address string, o Options) user {
	t.Helper()
	if o.Backoff == 0 {
		o.Backoff = 5 * time.Millisecond
		o.MaxBackoff = 100 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := Dial(ctx, address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	u := user{c, t}
	if e := await[Connected](u); e.Resumed || e.Peer == "" {
		t.Fatalf("first event: %+v", e)
	}
	return u
}

// next is one event.
func (u user) next() Event {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e, err := u.Next(ctx)
	if err != nil {
		u.t.Fatalf("%s: next event: %v", u.Self().User, err)
	}
	return e
}

// await takes events until there is one of a type.
func await[E Event](u user) E {
	u.t.Helper()
	for {
		if e, ok := u.next().(E); ok {
			return e
		}
	}
}

func (u user) join(room string) Joined {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	j, err := u.Join(ctx, room)
	if err != nil {
		u.t.Fatalf("join: %v", err)
	}
	return j
}

func (u user) signal(to string, data any) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := u.Signal(ctx, to, data); err != nil {
		u.t.Fatalf("signal: %v", err)
	}
}

// ends takes events until the client has ended, and returns why.
func (u user) ends() error {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, err := u.Next(ctx); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				u.t.Fatal("the client does not end")
			}
			return err
		}
	}
}

// pair is two users in a room, who have seen each other.
func pair(t *testing.T, a, b string, oa, ob Options) (user, user) {
	t.Helper()
	left, right := dial(t, a, oa), dial(t, b, ob)
	left.join("tea")
	right.join("tea")
	await[PeerJoined](left)
	await[Joined](right)
	return left, right
}
