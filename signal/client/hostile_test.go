package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const welcome = `{"type":"welcome","seq":1,"peer":"p","user":"u","name":"n","resume":"r","resumed":false,"received":0,"limits":{}}`

// server runs f for each connection after its hello; when f returns the connection is gone.
func server(t *testing.T, f func(ctx context.Context, n int, say func(string), conn *websocket.Conn)) (address string, connections *atomic.Int64) {
	t.Helper()
	connections = new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		if _, _, err := conn.Read(ctx); err != nil {
			return
		}
		f(ctx, int(connections.Add(1)), func(text string) {
			_ = conn.Write(ctx, websocket.MessageText, []byte(text)) // the client may have gone
		}, conn)
	}))
	t.Cleanup(func() { cancel(); s.Close() })
	return s.URL, connections
}

func TestBrokenServerIsLeftAndTriedAgain(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":             `hello`,
		"no object":           `[1]`,
		"no type":             `{"seq":2}`,
		"gap":                 `{"type":"signal","seq":7,"from":"x","data":1}`,
		"wrong kind of field": `{"type":"signal","seq":2,"from":{"peer":1}}`,
		"negative number":     `{"type":"signal","seq":-2,"from":"x","data":1}`,
		"no time":             `{"type":"ring","seq":2,"call":"c","expiresAt":"soon"}`,
		"deep":                strings.Repeat("[", 20000),
		"long":                `{"type":"x","pad":"` + strings.Repeat("x", 5<<10) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			address, connections := server(t, func(ctx context.Context, n int, say func(string), conn *websocket.Conn) {
				if n > 1 && n < 4 {
					say(`{"type":"welcome","peer":"p","user":"u","name":"n","resume":"r","resumed":true,"received":0}`)
				} else {
					say(welcome)
				}
				say(text)
				_, _, _ = conn.Read(ctx)
			})
			c := dial(t, address, Options{MaxMessage: 4 << 10})
			if e := await[Disconnected](c); e.Err == nil {
				t.Errorf("disconnected: %+v", e)
			}
			await[Connected](c)
			await[Connected](c)
			if err := c.Close(); err != nil || connections.Load() < 3 {
				t.Errorf("%d connections, close: %v", connections.Load(), err)
			}
		})
	}
}

func TestWelcomeHasToBeOne(t *testing.T) {
	for name, text := range map[string]string{
		"another message":      `{"type":"joined","seq":1}`,
		"without peer":         strings.Replace(welcome, `"peer":"p",`, "", 1),
		"another number":       strings.Replace(welcome, `"seq":1`, `"seq":2`, 1),
		"resumed from nothing": strings.Replace(welcome, `"resumed":false`, `"resumed":true`, 1),
		"endless token":        strings.Replace(welcome, `"resume":"r"`, `"resume":"`+strings.Repeat("r", 200)+`"`, 1),
		"error":                `{"type":"error","code":"busy","message":"later"}`,
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := server(t, func(_ context.Context, _ int, say func(string), _ *websocket.Conn) { say(text) })
			if _, err := Dial(t.Context(), address, Options{}); err == nil {
				t.Error("it is taken for a welcome")
			}
		})
	}
	silent, _ := server(t, func(ctx context.Context, _ int, _ func(string), _ *websocket.Conn) { <-ctx.Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, silent, Options{}); err == nil {
		t.Error("silence is taken for a welcome")
	}
}

func TestServerThatFloodsIsLeftUntilEventsAreTaken(t *testing.T) {
	const limit = 64 << 10
	data := strings.Repeat("x", 1000)
	address, connections := server(t, func(ctx context.Context, n int, say func(string), conn *websocket.Conn) {
		if n > 1 {
			say(`{"type":"welcome","peer":"p","user":"u","name":"n","resume":"r","resumed":true,"received":0}`)
			_, _, _ = conn.Read(ctx)
			return
		}
		say(welcome)
		for seq := 2; ctx.Err() == nil && seq < 1000; seq++ {
			say(fmt.Sprintf(`{"type":"signal","seq":%d,"from":"x","data":%q}`, seq, data))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := Dial(ctx, address, Options{MaxQueue: limit, Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	u := user{c, t}
	// The connection is given up, and no other one is made.
	for {
		c.mu.Lock()
		online, bytes := c.online, c.queue.bytes
		c.mu.Unlock()
		if bytes > limit+2000 {
			t.Fatalf("%d bytes wait", bytes)
		}
		if !online {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the flood is read on")
		}
		<-time.After(time.Millisecond)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	await[Connected](u)
	if e := await[Connected](u); !e.Resumed {
		t.Errorf("connected: %+v", e)
	}
}

func TestServerThatDoesNotSayGoodbyeHoldsNobodyUp(t *testing.T) {
	address, _ := server(t, func(ctx context.Context, _ int, say func(string), _ *websocket.Conn) {
		say(welcome)
		<-ctx.Done()
	})
	c := dial(t, address, Options{})
	begun := time.Now()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 10*goodbyeTimeout {
		t.Errorf("Close took %v", took)
	}
	if err := c.ends(); !errors.Is(err, ErrClosed) {
		t.Errorf("ends with %v", err)
	}
}

func TestCloseCodesThatAreFinal(t *testing.T) {
	for code, want := range map[websocket.StatusCode]error{1000: ErrClosed, 4000: ErrFaulty, 4001: ErrUnauthorized, 4002: ErrReplaced} {
		address, connections := server(t, func(_ context.Context, _ int, say func(string), conn *websocket.Conn) {
			say(welcome)
			_ = conn.Close(code, "because")
		})
		c := dial(t, address, Options{})
		if err := c.ends(); !errors.Is(err, want) {
			t.Errorf("%d: %v, want %v", code, err, want)
		}
		if n := connections.Load(); n != 1 {
			t.Errorf("%d: %d connections", code, n)
		}
	}
}

// FuzzReceive feeds a client what a server might say.
func FuzzReceive(f *testing.F) {
	for _, text := range []string{
		`{"type":"signal","seq":2,"from":"a","data":{"x":1}}`, `{"type":"joined","seq":2,"room":"tea","version":1,"peers":[{"peer":"p"}],"you":"p","id":"1"}`,
		`{"type":"peer-joined","seq":2,"room":"tea","peer":{"peer":"a","user":"b","name":"c"}}`, `{"type":"goaway","afterMs":9223372036854775807}`,
		`{"type":"ice-servers","seq":2,"iceServers":[{"urls":["stun:x"]}],"ttlSeconds":-1,"expiresAt":"2026-01-01T00:00:00Z","id":"2"}`,
		`{"type":"pong","received":9}`, `{"type":"ack","seq":3}`, `{"type":"error","seq":2,"code":"busy","id":"1"}`, `{"type":"welcome"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		c := &Client{
			o: Options{RenewICE: true, MaxQueue: 1 << 20}, wake: make(chan struct{}, 1), space: make(chan struct{}),
			rooms: map[string]*membership{"tea": {}}, pending: make(map[string]answer),
		}
		c.queue.init()
		c.handled = 1
		c.joinLocked("tea")
		c.renewICELocked()
		_ = c.receive(frame)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.handled > 2 || c.ackableLocked() > c.handled || len(c.queue.entries) > 2 || c.next > len(c.outbox) || c.bytes < 0 {
			t.Errorf("after %q: handled %d, %d events, %d to send from %d", frame, c.handled, len(c.queue.entries), len(c.outbox), c.next)
		}
		if wait := c.nextLocked(time.Now()); wait < -time.Minute {
			t.Errorf("after %q: due %v ago", frame, -wait)
		}
	})
}
