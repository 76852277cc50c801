package signal

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// message is any message of the server.
type message struct {
	Type      string          `json:"type"`
	Seq       uint64          `json:"seq"`
	ID        string          `json:"id"`
	Peer      json.RawMessage `json:"peer"`
	Peers     []personJSON    `json:"peers"`
	User      string          `json:"user"`
	Name      string          `json:"name"`
	Resume    string          `json:"resume"`
	Resumed   bool            `json:"resumed"`
	Received  uint64          `json:"received"`
	Room      string          `json:"room"`
	Version   uint64          `json:"version"`
	You       string          `json:"you"`
	Relay     string          `json:"relay"`
	From      json.RawMessage `json:"from"`
	By        personJSON      `json:"by"`
	To        string          `json:"to"`
	Data      json.RawMessage `json:"data"`
	Reason    string          `json:"reason"`
	Code      string          `json:"code"`
	Message   string          `json:"message"`
	Field     string          `json:"field"`
	Call      string          `json:"call"`
	ExpiresAt string          `json:"expiresAt"`
	TTL       int             `json:"ttlSeconds"`
	ICE       []ICEServer     `json:"iceServers"`
	AfterMs   int             `json:"afterMs"`
	Limits    map[string]int  `json:"limits"`
	raw       []byte
}

type personJSON struct{ Peer, User, Name string }

func (m *message) peerID() string {
	var s string
	if json.Unmarshal(m.Peer, &s) == nil {
		return s
	}
	var p personJSON
	_ = json.Unmarshal(m.Peer, &p)
	return p.Peer
}

func (m *message) from() string {
	var s string
	if json.Unmarshal(m.From, &s) == nil {
		return s
	}
	var p personJSON
	_ = json.Unmarshal(m.From, &p)
	return p.Peer
}

// client speaks callbox.v1. It acknowledges everything at once unless told otherwise.
type client struct {
	t     testing.TB
	ws    *websocket.Conn
	in    chan message
	err   error // why reading ended; valid once in is closed
	peer  string
	token string
	hello message

	mu    sync.Mutex
	seq   uint64 // last number handled
	noAck bool
	sent  uint64
}

func ctx10(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// dial connects without saying anything.
func dial(t testing.TB, n *node, query string) *client {
	t.Helper()
	ws, _, err := websocket.Dial(ctx10(t), n.url(query), &websocket.DialOptions{Subprotocols: []string{Subprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(1 << 20)
	c := &client{t: t, ws: ws, in: make(chan message, 4096)}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return c
}

// connect says hello and awaits the welcome.
func connect(t testing.TB, n *node, query string) *client {
	t.Helper()
	c := dial(t, n, query)
	go c.read()
	c.send(`{"type":"hello"}`)
	c.welcomed()
	return c
}

func (c *client) welcomed() {
	c.t.Helper()
	c.hello = c.expect("welcome")
	c.peer, c.token = c.hello.peerID(), c.hello.Resume
}

// resume opens a new connection for the session of c.
func (c *client) resume(n *node, query string) *client {
	c.t.Helper()
	d := c.resuming(n, query)
	d.welcomed()
	return d
}

// resuming is resume that does not await the welcome.
func (c *client) resuming(n *node, query string) *client {
	c.t.Helper()
	d := dial(c.t, n, query)
	c.mu.Lock()
	d.seq, d.sent, d.noAck = c.seq, c.sent, c.noAck
	d.peer, d.token = c.peer, c.token
	c.mu.Unlock()
	go d.read()
	b, _ := json.Marshal(map[string]any{"type": "hello", "resume": map[string]any{"token": c.token, "seq": d.seq}})
	d.send(string(b))
	return d
}

func (c *client) read() {
	defer close(c.in)
	for {
		_, b, err := c.ws.Read(context.Background())
		if err != nil {
			c.err = err
			return
		}
		var m message
		if err := json.Unmarshal(b, &m); err != nil {
			c.t.Errorf("the server sent %q: %v", b, err)
		}
		m.raw = b
		ack := uint64(0)
		c.mu.Lock()
		if m.Seq > 0 && m.Type != "ack" {
			if m.Seq != c.seq+1 && m.Type != "welcome" {
				c.t.Errorf("number %d follows %d: %s", m.Seq, c.seq, b)
			}
			c.seq = m.Seq
			if !c.noAck {
				ack = m.Seq
			}
		}
		c.mu.Unlock()
		if ack > 0 {
			b, _ := json.Marshal(map[string]any{"type": "ack", "seq": ack})
			_ = c.ws.Write(context.Background(), websocket.MessageText, b)
		}
		c.in <- m
	}
}

func (c *client) send(s string) {
	c.t.Helper()
	if err := c.ws.Write(ctx10(c.t), websocket.MessageText, []byte(s)); err != nil {
		c.t.Fatalf("send %.80s: %v", s, err)
	}
}

// next is the next message, acknowledgements left out.
func (c *client) next() message {
	c.t.Helper()
	for {
		select {
		case m, ok := <-c.in:
			if !ok {
				c.t.Fatalf("the connection ended: %v", c.err)
			}
			if m.Type == "ack" {
				continue
			}
			return m
		case <-time.After(10 * time.Second):
			c.t.Fatal("no message came")
		}
	}
}

// expect is the next message, which must be of that type.
func (c *client) expect(typ string) message {
	c.t.Helper()
	m := c.next()
	if m.Type != typ {
		c.t.Fatalf("want %s, got %s", typ, m.raw)
	}
	return m
}

// await skips to the next message of that type.
func (c *client) await(typ string) message {
	c.t.Helper()
	for {
		if m := c.next(); m.Type == typ {
			return m
		}
	}
}

// closed awaits the end and returns the close code.
func (c *client) closed() websocket.StatusCode {
	c.t.Helper()
	return c.closedWithin(15 * time.Second)
}

func (c *client) closedWithin(limit time.Duration) websocket.StatusCode {
	c.t.Helper()
	end := time.After(limit)
	for {
		select {
		case _, ok := <-c.in:
			if !ok {
				return websocket.CloseStatus(c.err)
			}
		case <-end:
			c.t.Fatal("the connection stays open")
		}
	}
}

// quiet checks that nothing is on its way: a ping's answer comes first.
func (c *client) quiet() {
	c.t.Helper()
	c.send(`{"type":"ping","id":"quiet"}`)
	if m := c.next(); m.Type != "pong" {
		c.t.Fatalf("unexpected: %s", m.raw)
	}
}

func (c *client) join(room string) message {
	c.t.Helper()
	c.send(`{"type":"join","room":"` + room + `"}`)
	return c.await("joined")
}

// drop loses the connection without a word.
func (c *client) drop() {
	_ = c.ws.CloseNow()
	for range c.in {
	}
}

func httpGet(t *testing.T, url string, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx10(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}
