package callboxtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/turn/v3"
	"go.uber.org/goleak"

	"callbox/callboxtest"
)

const password = "correct horse battery"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is the smallest client of callbox.v1 that shows something.
type peer struct {
	t    *testing.T
	conn *websocket.Conn
	id   string
}

type message struct {
	Type string          `json:"type"`
	Peer json.RawMessage `json:"peer"`
	From string          `json:"from"`
	Data json.RawMessage `json:"data"`
}

func join(t *testing.T, s *callboxtest.Server, room, user string) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, s.WebSocket, &websocket.DialOptions{Subprotocols: []string{"callbox.v1", "token." + s.RoomToken(room, user)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	p := &peer{t: t, conn: conn}
	p.send(map[string]any{"type": "hello"})
	if err := json.Unmarshal(p.await("welcome").Peer, &p.id); err != nil {
		t.Fatal(err)
	}
	p.send(map[string]any{"type": "join", "room": room})
	p.await("joined")
	return p
}

func (p *peer) send(v any) {
	p.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.conn.Write(p.t.Context(), websocket.MessageText, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) await(kind string) message {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, text, err := p.conn.Read(ctx)
		if err != nil {
			p.t.Fatalf("before %s: %v", kind, err)
		}
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			p.t.Fatal(err)
		}
		if m.Type == kind {
			return m
		}
	}
}

// talk carries an offer and an answer between two peers.
func talk(t *testing.T, a, b *peer) {
	t.Helper()
	a.await("peer-joined")
	a.send(map[string]any{"type": "signal", "to": b.id, "data": "offer"})
	if m := b.await("signal"); m.From != a.id || string(m.Data) != `"offer"` {
		t.Errorf("offer: %+v", m)
	}
	b.send(map[string]any{"type": "signal", "to": a.id, "data": "answer"})
	if m := a.await("signal"); m.From != b.id || string(m.Data) != `"answer"` {
		t.Errorf("answer: %+v", m)
	}
}

func TestServerAloneSignsInSignalsAndRelays(t *testing.T) {
	s := callboxtest.New(t)
	s.AddUser("ada", password)
	resp, err := s.LogIn("ada", password).Get(s.URL + "/call/tea")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("call page: %s", resp.Status)
	}
	a := join(t, s, "tea", "one")
	talk(t, a, join(t, s, "tea", "two"))
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) { allocate(t, s, network) })
	}
}

// allocate opens a relay on the server.
func allocate(t *testing.T, s *callboxtest.Server, network string) {
	t.Helper()
	c := s.TURN("ada")
	var conn net.PacketConn
	if network == "tcp" {
		stream, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		conn = turn.NewSTUNConn(stream)
	} else {
		var err error
		if conn, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = conn.Close() }()
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: s.Addr, TURNServerAddr: s.Addr, Conn: conn,
		Username: c.Username, Password: c.Password, Realm: c.Realm,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	relayed, err := client.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	if err := relayed.Close(); err != nil {
		t.Error(err)
	}
}

func TestPeersOfTwoNodesTalkOverOneRedis(t *testing.T) {
	c := callboxtest.NewCluster(t, 2)
	c.Nodes[0].AddUser("ada", password)
	a := join(t, c.Nodes[0], "tea", "one")
	b := join(t, c.Nodes[1], "tea", "two")
	talk(t, a, b)
	// A user of one node is a user of the other.
	deadline := time.Now().Add(20 * time.Second)
	for {
		resp, err := http.Post(c.Nodes[1].URL+"/api/v1/login", "application/json", loginBody("ada"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusNoContent {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("login on the other node: %s", resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	// The test may stop a node; what is left goes on.
	c.Nodes[1].Close()
	talk(t, a, join(t, c.Nodes[0], "tea", "three"))
}

func loginBody(name string) io.Reader {
	return strings.NewReader(`{"username":"` + name + `","password":"` + password + `"}`)
}

func ExampleServer_RoomToken() {
	example := func(t *testing.T) {
		s := callboxtest.New(t, callboxtest.WithFlag("max-peers", "4"))
		req, err := http.NewRequest(http.MethodGet, s.URL+"/api/v1/ice-servers", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.RoomToken("tea", "guest"))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		fmt.Println(resp.Status)
	}
	_ = example // in a program's own test: t.Run("call", example)
}
