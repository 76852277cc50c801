package app

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"

	"callbox/bus"
	"callbox/bus/memory"
	"callbox/internal/config"
	"callbox/internal/control"
)

// wsMessage is what the tests look at.
type wsMessage struct {
	Type       string          `json:"type"`
	Peer       json.RawMessage `json:"peer"`
	Peers      []struct{ Peer, User string }
	From       string
	Data       json.RawMessage
	ID         string
	Code       string
	ICEServers []struct{ URLs []string } `json:"iceServers"`
}

// peer is one client of callbox.v1.
type peer struct {
	t    *testing.T
	conn *websocket.Conn
	id   string
}

// dial connects without hello and returns the HTTP status where it is refused.
func (r *running) dial(c *http.Client, token string, header http.Header) (*websocket.Conn, int) {
	r.t.Helper()
	protocols := []string{"callbox.v1"}
	if token != "" {
		protocols = append(protocols, "token."+token)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, r.url("/ws"), &websocket.DialOptions{HTTPClient: c, HTTPHeader: header, Subprotocols: protocols})
	if err != nil {
		if resp == nil {
			r.t.Fatal(err)
		}
		return nil, resp.StatusCode
	}
	r.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, resp.StatusCode
}

// join says hello and enters a room.
func (r *running) join(conn *websocket.Conn, room string) *peer {
	r.t.Helper()
	if conn == nil {
		r.t.Fatal("not connected")
	}
	p := &peer{t: r.t, conn: conn}
	p.send(map[string]any{"type": "hello"})
	if err := json.Unmarshal(p.await("welcome").Peer, &p.id); err != nil {
		r.t.Fatal(err)
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

// read returns the next message, or the close code.
func (p *peer) read() (wsMessage, websocket.StatusCode) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	_, text, err := p.conn.Read(ctx)
	if err != nil {
		code := websocket.CloseStatus(err)
		if code == -1 {
			p.t.Fatal(err)
		}
		return wsMessage{}, code
	}
	var m wsMessage
	if err := json.Unmarshal(text, &m); err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
	return m, 0
}

func (p *peer) await(kind string) wsMessage {
	p.t.Helper()
	for {
		m, code := p.read()
		if code != 0 {
			p.t.Fatalf("closed with %d before %s", code, kind)
		}
		if m.Type == kind {
			return m
		}
	}
}

func (p *peer) awaitClose() websocket.StatusCode {
	p.t.Helper()
	for {
		if _, code := p.read(); code != 0 {
			return code
		}
	}
}

func (r *running) own() http.Header { return http.Header{"Origin": {r.url("")}} }

func TestWebSocketAdmitsCookiesOfOwnPagesAndTokens(t *testing.T) {
	r := serve(t, func(c *config.Config) { c.Origins = []config.Origin{"https://app.example"} })
	r.addUser("ada", false)
	ada, token := r.logIn("ada"), r.mint("tea", "guest", time.Hour)
	app, evil := http.Header{"Origin": {"https://app.example"}}, http.Header{"Origin": {"https://evil.example"}}
	for name, c := range map[string]struct {
		client *http.Client
		token  string
		header http.Header
		want   int
	}{
		"nobody":                      {r.browser(), "", nil, 401},
		"nobody on our page":          {r.browser(), "", r.own(), 401},
		"cookie on our page":          {ada, "", r.own(), 101},
		"cookie without origin":       {ada, "", nil, 403},
		"cookie on a foreign page":    {ada, "", evil, 403},
		"cookie on an allowed page":   {ada, "", app, 403},
		"token without origin":        {r.browser(), token, nil, 101},
		"token on an allowed page":    {r.browser(), token, app, 101},
		"token on a foreign page":     {r.browser(), token, evil, 403},
		"false token beside a cookie": {ada, "false", r.own(), 401},
		"token in the header":         {r.browser(), "", http.Header{"Authorization": {"Bearer " + token}}, 101},
	} {
		t.Run(name, func(t *testing.T) {
			if _, got := r.dial(c.client, c.token, c.header); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestWelcomeCarriesServersForTheHostThatWasUsed(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	conn, _ := r.dial(r.logIn("ada"), "", r.own())
	p := r.join(conn, "tea")
	p.send(map[string]any{"type": "ice-servers", "room": "tea", "id": "1"})
	m := p.await("ice-servers")
	if len(m.ICEServers) != 2 || m.ICEServers[0].URLs[0] != "stun:"+r.Addr().String() {
		t.Errorf("got %+v", m.ICEServers)
	}
}

func TestLogoutRemovalAndRevokedKeysCloseConnections(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	r.addUser("bob", false)
	ada, bob := r.logIn("ada"), r.logIn("bob")
	c1, _ := r.dial(ada, "", r.own())
	c2, _ := r.dial(bob, "", r.own())
	key, err := control.NewClient(r.data).AddKey(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	c3, _ := r.dial(r.browser(), r.mintWith(key, "tea", "guest"), nil)
	c4, _ := r.dial(r.browser(), r.mint("tea", "guest", time.Hour), nil)
	pa, pb, guest, stays := r.join(c1, "tea"), r.join(c2, "tea"), r.join(c3, "tea"), r.join(c4, "tea")

	if a := r.form(ada, "/logout"); a.Status != http.StatusSeeOther {
		t.Fatalf("logout: %d", a.Status)
	}
	if code := pa.awaitClose(); code != 4001 {
		t.Errorf("logged out: closed with %d", code)
	}
	if err := control.NewClient(r.data).RemoveUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	if code := pb.awaitClose(); code != 4001 {
		t.Errorf("removed: closed with %d", code)
	}
	if err := control.NewClient(r.data).RemoveKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	if code := guest.awaitClose(); code != 4001 {
		t.Errorf("key removed: closed with %d", code)
	}
	stays.send(map[string]any{"type": "ping", "id": "still"})
	if m := stays.await("pong"); m.ID != "still" {
		t.Errorf("the other key's guest: %+v", m)
	}
}

func TestStopTellsClientsToComeBack(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	conn, _ := r.dial(r.logIn("ada"), "", r.own())
	p := r.join(conn, "tea")
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	p.await("goaway")
	if code := p.awaitClose(); code != 4005 {
		t.Errorf("closed with %d", code)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// cluster starts nodes that share the memory of one process.
func cluster(t *testing.T, n int, change func(i int, c *config.Config)) []*running {
	t.Helper()
	network := memory.NewNetwork()
	secret := filepath.Join(t.TempDir(), "cluster-secret")
	writeFile(t, secret, "0123456789abcdef0123456789abcdef\n")
	var nodes []*running
	for i := range n {
		cfg := config.Default()
		cfg.Listen = netip.MustParseAddrPort("127.0.0.1:0")
		cfg.Data = filepath.Join(t.TempDir(), "data")
		cfg.ClusterSecretFile, cfg.DoctorEvery = secret, 0
		cfg.NodeName = string(rune('a' + i))
		if change != nil {
			change(i, &cfg)
		}
		nodes = append(nodes, serveWith(t, cfg, Options{OpenBus: func(_ context.Context, store *bus.Store) (bus.Bus, error) {
			return network.Open(memory.Config{Name: cfg.NodeName, Store: store})
		}}))
	}
	return nodes
}

func TestNodesAreOneSystem(t *testing.T) {
	nodes := cluster(t, 2, nil)
	a, b := nodes[0], nodes[1]
	a.addUser("ada", false)
	eventually(t, func() bool { return b.web.users.Count() == 1 })

	// One login is good on both.
	ada := a.logIn("ada")
	u, _ := url.Parse(a.url("/"))
	cookie := ada.Jar.Cookies(u)[0].String()
	if got := b.get(b.browser(), "/", "Cookie", cookie); got.Status != http.StatusOK {
		t.Fatalf("the cookie on the other node: %d", got.Status)
	}

	// A signal goes from a peer of one to a peer of the other.
	here, _ := a.dial(ada, "", a.own())
	header := b.own()
	header.Set("Cookie", cookie)
	there, _ := b.dial(b.browser(), "", header)
	from := a.join(here, "tea")
	to := b.join(there, "tea")
	for {
		m := from.await("peer-joined")
		var other struct{ Peer string }
		if err := json.Unmarshal(m.Peer, &other); err != nil {
			t.Fatal(err)
		}
		if other.Peer == to.id {
			break
		}
	}
	from.send(map[string]any{"type": "signal", "to": to.id, "data": map[string]string{"sdp": "offer"}})
	if m := to.await("signal"); m.From != from.id || string(m.Data) != `{"sdp":"offer"}` {
		t.Errorf("got %+v", m)
	}
	to.send(map[string]any{"type": "signal", "to": from.id, "data": map[string]string{"sdp": "answer"}})
	if m := from.await("signal"); m.From != to.id || string(m.Data) != `{"sdp":"answer"}` {
		t.Errorf("got %+v", m)
	}

	// Each offers its own TURN first and the other's next, with credentials that are good on both.
	eventually(t, func() bool {
		list := a.web.ice(caller{Owner: "ada", Session: "x"}, client{Host: "127.0.0.1"}, "").Servers
		return len(list) == 3 && list[1].URLs[0] == "turn:"+a.Addr().String()+"?transport=udp" && list[2].URLs[0] == "turn:"+b.Addr().String()+"?transport=udp"
	})
	ice := a.web.ice(caller{Owner: "ada", Session: "x"}, client{Host: "127.0.0.1"}, "")
	if _, _, err := b.turnKeys(ice.Servers[1].Username, "callbox", true); err != nil {
		t.Errorf("the other node's relay: %v", err)
	}

	// Logging out on one ends the session on the other.
	if got := a.form(ada, "/logout"); got.Status != http.StatusSeeOther {
		t.Fatalf("logout: %d", got.Status)
	}
	if code := to.awaitClose(); code != 4001 {
		t.Errorf("closed with %d", code)
	}
	if got := b.get(b.browser(), "/", "Cookie", cookie); got.Status != http.StatusSeeOther {
		t.Errorf("the cookie after logout: %d", got.Status)
	}
}

func TestDrainingNodeIsNotOffered(t *testing.T) {
	nodes := cluster(t, 2, nil)
	offered := func() int { return len(nodes[0].web.ice(caller{}, client{Host: "127.0.0.1"}, "").Servers) }
	eventually(t, func() bool { return offered() == 3 })
	if err := nodes[1].stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return offered() == 2 })
}
