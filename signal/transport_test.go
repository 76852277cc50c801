package signal

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callbox/bus/memory"

	"github.com/coder/websocket"
)

// wrapped is a connection inside another, as a listener makes them that looks at the first bytes.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

type wrapping struct{ net.Listener }

func (l wrapping) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return wrapped{c}, err
}

func TestEveryKindOfConnectionCarriesSmallAndLargeMessages(t *testing.T) {
	for _, kind := range []string{"plain", "wrapped", "TLS"} {
		t.Run(kind, func(t *testing.T) {
			c := newCluster(t, 1, Limits{QueueBytes: 4 << 20})
			n := c.nodes[0]
			srv := httptest.NewUnstartedServer(http.HandlerFunc(n.serve))
			scheme := "ws"
			switch kind {
			case "wrapped":
				srv.Listener = wrapping{srv.Listener}
				srv.Start()
			case "TLS":
				srv.StartTLS()
				scheme = "wss"
			default:
				srv.Start()
			}
			t.Cleanup(srv.Close)
			t.Cleanup(n.stop)
			open := func(user string) *client {
				ws, _, err := websocket.Dial(ctx10(t), scheme+strings.TrimPrefix(srv.URL, map[string]string{"ws": "http", "wss": "https"}[scheme])+"/?user="+user,
					&websocket.DialOptions{Subprotocols: []string{Subprotocol}, HTTPClient: srv.Client()})
				if err != nil {
					t.Fatal(err)
				}
				ws.SetReadLimit(1 << 20)
				p := &client{t: t, ws: ws, in: make(chan message, 4096)}
				t.Cleanup(func() { _ = ws.CloseNow() })
				go p.read()
				p.send(`{"type":"hello"}`)
				p.welcomed()
				p.join("tea")
				return p
			}
			a, b := open("a"), open("b")
			a.expect("peer-joined")
			for i, size := range []int{1, 5, 100, 4 << 10, 70 << 10, 250 << 10, 7, 7, 7, 30 << 10} {
				data := fmt.Sprintf(`"%d %s"`, i, strings.Repeat("y", size))
				a.send(`{"type":"signal","to":"` + b.peer + `","data":` + data + `}`)
				if m := b.expect("signal"); string(m.Data) != data {
					t.Fatalf("%d bytes came as %d", len(data), len(m.Data))
				}
			}
			sockets := 0
			n.hub.eachConn(func(c *conn) {
				if c.sock != nil {
					sockets++
				}
			})
			if want := map[string]int{"plain": 2, "wrapped": 2, "TLS": 0}[kind]; sockets != want {
				t.Errorf("%d connections are written without a goroutine, want %d", sockets, want)
			}
		})
	}
}

// pipes is a listener for connections inside the process, which testing/synctest can wait for.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error { close(p.done); return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs f with one node whose clock is the bubble's.
func inBubble(t *testing.T, f func(t *testing.T, h *Hub, open func(query string) *client)) {
	synctest.Test(t, func(t *testing.T) {
		b, err := memory.NewNetwork().Open(memory.Config{})
		if err != nil {
			t.Fatal(err)
		}
		h := New(Config{Bus: b})
		if err := b.Start(handler{h}); err != nil {
			t.Fatal(err)
		}
		l := pipes{make(chan net.Conn), make(chan struct{})}
		srv := &http.Server{Handler: http.HandlerFunc((&node{hub: h}).serve)}
		go func() { _ = srv.Serve(l) }()
		tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			near, far := net.Pipe()
			l.conns <- far
			return near, nil
		}}
		f(t, h, func(query string) *client {
			ws, _, err := websocket.Dial(t.Context(), "ws://callbox/ws?"+query,
				&websocket.DialOptions{Subprotocols: []string{Subprotocol}, HTTPClient: &http.Client{Transport: tr},
					OnPingReceived: func(context.Context, []byte) bool { return !strings.Contains(query, "mute") }})
			if err != nil {
				t.Fatal(err)
			}
			return &client{t: t, ws: ws, in: make(chan message, 4096)}
		})
		_ = h.Close()
		_ = srv.Close()
		_ = b.Close()
		tr.CloseIdleConnections()
	})
}

func TestTheTimesOfTheProtocol(t *testing.T) {
	near := func(t *testing.T, what string, got, want time.Duration) {
		t.Helper()
		if got < want || got > want+2*time.Second {
			t.Errorf("%s after %v, want %v", what, got, want)
		}
	}
	said := func(c *client) *client {
		go c.read()
		c.send(`{"type":"hello"}`)
		c.welcomed()
		return c
	}
	until := func(f func() bool) time.Duration {
		start := time.Now()
		for !f() {
			time.Sleep(100 * time.Millisecond) // of the bubble's clock
			synctest.Wait()
		}
		return time.Since(start)
	}
	t.Run("hello", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *Hub, open func(string) *client) {
			c := open("user=a")
			go c.read()
			start := time.Now()
			if code := c.closed(); code != 4008 {
				t.Error(code)
			}
			near(t, "closed", time.Since(start), 10*time.Second)
		})
	})
	t.Run("silence", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *Hub, open func(string) *client) {
			c := said(open("user=a"))
			d := said(open("user=b&mute=1")) // answers no ping
			near(t, "dropped", until(func() bool { return h.Stats().Held == 1 }), 45*time.Second)
			near(t, "ended", until(func() bool { return h.Stats().Sessions == 1 }), 30*time.Second)
			time.Sleep(time.Hour)
			c.quiet()
			_ = c.ws.CloseNow()
			_ = d.ws.CloseNow()
		})
	})
	t.Run("ring and expiry", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *Hub, open func(string) *client) {
			a, b := said(open("user=a&expires=120000")), said(open("user=b&login=1"))
			a.send(`{"type":"call","user":"b","room":"tea"}`)
			a.expect("calling")
			b.expect("ring")
			start := time.Now()
			if m, ok := <-b.in; !ok || m.Reason != "timeout" {
				t.Errorf("%s", m.raw)
			}
			near(t, "the ring ended", time.Since(start), 45*time.Second)
			if code := a.closedWithin(5 * time.Minute); code != 4001 {
				t.Error(code)
			}
			near(t, "expired", time.Since(start), 120*time.Second)
			_ = b.ws.CloseNow()
		})
	})
}
