package signal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// serveAyame admits any key but "bad", with ICE servers unless it is "open".
func (n *node) serveAyame(w http.ResponseWriter, r *http.Request) {
	n.hub.ServeAyame(w, r, func(key, room string) (Identity, bool) {
		id := Identity{User: "anybody", Open: true}
		if key != "open" {
			id = Identity{User: "u", Room: room, Session: "key", ICE: func(room string) (ICE, error) {
				return ICE{Servers: []ICEServer{{URLs: []string{"turn:192.0.2.1"}, Username: room, Credential: "c"}}}, nil
			}}
		}
		return id, key != "bad"
	})
}

func dialAyame(t testing.TB, n *node) *adapted { return dialAdapted(t, n, "/ayame/signaling") }

type ayameAccept struct {
	Type          string
	ConnectionID  string
	IsExistClient bool
	IsExistUser   bool
	ICEServers    []ICEServer
}

// ayameIn registers and is accepted.
func ayameIn(t testing.TB, n *node, room, more string, exist bool) *adapted {
	t.Helper()
	a := dialAyame(t, n)
	a.send(`{"type":"register","roomId":"` + room + `","clientId":"c"` + more + `}`)
	var m ayameAccept
	text := a.next()
	if json.Unmarshal([]byte(text), &m) != nil || m.Type != "accept" || m.ConnectionID == "" || m.IsExistClient != exist || m.IsExistUser != exist {
		t.Fatalf("exist %v: %s", exist, text)
	}
	return a
}

func TestAyameCall(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, Limits{})
			first, last := c.nodes[0], c.nodes[nodes-1]
			a := ayameIn(t, first, "tea", "", false)
			b := ayameIn(t, last, "tea", "", true)
			for _, m := range []string{`{"type":"offer","sdp":"v=0\r\n"}`, `{ "type" : "candidate", "ice": {"candidate":"é"} }`} {
				b.send(m)
				a.expect(m)
			}
			a.send(`{"sdp":"x","type":"answer"}`)
			b.expect(`{"sdp":"x","type":"answer"}`)
			third := dialAyame(t, last)
			third.send(`{"type":"register","roomId":"tea"}`)
			third.expect(`{"type":"reject","reason":"full"}`)
			if code := third.closed(); code != websocket.StatusNormalClosure {
				t.Errorf("the third is closed with %d", code)
			}
			_ = b.ws.CloseNow()
			a.expect(`{"type":"bye"}`)
			if code := a.closed(); code != websocket.StatusNormalClosure {
				t.Errorf("the other is closed with %d", code)
			}
			eventually(t, "the room is empty", func() bool {
				r, err := first.bus.Room(t.Context(), ayameSpace+"tea")
				return err == nil && len(r.Members) == 0
			})
			ayameIn(t, last, "tea", "", false)
		})
	}
}

func TestAyameByeWhenTheOthersNodeIsKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Limits{})
	a := ayameIn(t, c.nodes[0], "tea", "", false)
	ayameIn(t, c.nodes[1], "tea", "", true)
	c.nodes[1].kill()
	a.expect(`{"type":"bye"}`)
}

func TestAyameAcceptCarriesICEServersOnlyWithAKey(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a := dialAyame(t, c.nodes[0])
	a.send(`{"type":"register","roomId":"tea","key":"open","signalingKey":"good"}`)
	if m := a.next(); !strings.Contains(m, `"iceServers":[{"urls":["turn:192.0.2.1"],"username":"@ayame/tea","credential":"c"}]`) {
		t.Error(m)
	}
	b := dialAyame(t, c.nodes[0])
	b.send(`{"type":"register","roomId":"coffee","key":"open"}`)
	if m := b.next(); strings.Contains(m, "ice") || !strings.Contains(m, "accept") {
		t.Error(m)
	}
}

func TestAyameRefusals(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	for _, s := range []string{
		`x`, `[]`, `{}`, `{"type":"pong"}`, `{"type":"offer","sdp":""}`, `{"type":"register"}`, `{"type":"register","roomId":""}`, `{"type":"register","roomId":7}`,
		`{"type":"register","roomId":"` + strings.Repeat("x", 300) + `"}`,
	} {
		a := dialAyame(t, c.nodes[0])
		a.send(s)
		if code := a.closed(); code != websocket.StatusCode(closeProtocol) {
			t.Errorf("%s: closed with %d", s, code)
		}
	}
	a := dialAyame(t, c.nodes[0])
	a.send(`{"type":"register","roomId":"r","signalingKey":"bad","key":"good"}`)
	a.expect(`{"type":"reject","reason":"unauthorized"}`)
	if code := a.closed(); code != websocket.StatusNormalClosure {
		t.Errorf("closed with %d", code)
	}
	for _, s := range []string{`x`, `{"type":"unheard-of"}`, `{"type":"register","roomId":"again"}`} {
		a := ayameIn(t, c.nodes[0], "r"+s[:1]+fmt.Sprint(len(s)), "", false)
		a.send(s)
		if code := a.closed(); code != websocket.StatusCode(closeProtocol) {
			t.Errorf("%s: closed with %d", s, code)
		}
	}
}

func TestAyamePingsAndStandaloneDoesNot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a := ayameIn(t, c.nodes[0], "tea", "", false)
	for range 2 {
		a.expect(`{"type":"ping"}`)
		a.send(`{"type":"pong"}`)
	}
	b := ayameIn(t, c.nodes[0], "coffee", `,"standalone":true`, false)
	d := ayameIn(t, c.nodes[0], "coffee", `,"standalone":true`, true)
	h := c.nodes[0].hub
	h.eachConn(func(c *conn) { c.beatAt.Store(1) })
	a.expect(`{"type":"ping"}`) // the same tick went over the others
	b.send(`{"type":"offer","sdp":"1"}`)
	d.expect(`{"type":"offer","sdp":"1"}`)
	b.send(`{"type":"connected"}`)
	if code := b.closed(); code != websocket.StatusNormalClosure {
		t.Errorf("closed with %d", code)
	}
	// Its peer has the call, and is told of no bye.
	eventually(t, "it is out of the room", func() bool {
		r, err := c.nodes[0].bus.Room(t.Context(), ayameSpace+"coffee")
		return err == nil && len(r.Members) == 1
	})
	d.send(`{"type":"connected"}`)
	d.closed()
}

func TestAyameClientWithoutPongIsClosed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a := ayameIn(t, c.nodes[0], "tea", "", false)
	b := ayameIn(t, c.nodes[0], "tea", "", true)
	begun := time.Now()
	c.nodes[0].hub.eachConn(func(c *conn) {
		if s := c.s.Load(); s != nil && len(s.peer) > 0 && c.lastRead.Load() > 0 {
			c.lastRead.Add(-int64(foreignSilence))
		}
	})
	for _, x := range []*adapted{a, b} {
		for range x.in {
		}
	}
	if time.Since(begun) > 20*time.Second {
		t.Error("closed late")
	}
}

func FuzzDecodeAyame(f *testing.F) {
	for _, s := range []string{`{"type":"register","roomId":"r","signalingKey":"k","key":"l","standalone":true}`, `{"type":"pong"}`, `x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := decodeAyame(b)
		if ok != (json.Valid(b) && strings.HasPrefix(strings.TrimLeft(string(b), " \t\r\n"), "{")) && ok {
			t.Fatalf("taken though it is no JSON object: %q", b)
		}
		for _, raw := range [][]byte{m.typ, m.room, m.key, m.signalingKey, m.standalone} {
			if ok && raw != nil && !json.Valid(raw) {
				t.Fatalf("%q out of %q", raw, b)
			}
		}
	})
}
