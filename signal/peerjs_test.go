package signal

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// adapted is a client of another server's protocol: it says texts and hears texts.
type adapted struct {
	t   testing.TB
	ws  *websocket.Conn
	in  chan string
	err error // why reading ended; valid once in is closed
}

func dialAdapted(t testing.TB, n *node, path string) *adapted {
	t.Helper()
	ws, res, err := websocket.Dial(ctx10(t), "ws"+strings.TrimPrefix(n.http.URL, "http")+path, nil)
	if err != nil {
		t.Fatal(err, res)
	}
	ws.SetReadLimit(4 << 20)
	a := &adapted{t: t, ws: ws, in: make(chan string, 4096)}
	t.Cleanup(func() { _ = ws.CloseNow() })
	go func() {
		defer close(a.in)
		for {
			_, b, err := ws.Read(context.Background())
			if err != nil {
				a.err = err
				return
			}
			a.in <- string(b)
		}
	}()
	return a
}

func (a *adapted) send(s string) {
	a.t.Helper()
	if err := a.ws.Write(ctx10(a.t), websocket.MessageText, []byte(s)); err != nil {
		a.t.Fatalf("send %.80s: %v", s, err)
	}
}

func (a *adapted) next() string {
	a.t.Helper()
	select {
	case m, ok := <-a.in:
		if !ok {
			a.t.Fatalf("the connection ended: %v", a.err)
		}
		return m
	case <-time.After(15 * time.Second):
		a.t.Fatal("no message came")
		return ""
	}
}

func (a *adapted) expect(want string) {
	a.t.Helper()
	if m := a.next(); m != want {
		a.t.Fatalf("got  %.300s\nwant %.300s", m, want)
	}
}

// closed awaits the end, with nothing said before it.
func (a *adapted) closed() websocket.StatusCode {
	a.t.Helper()
	select {
	case m, ok := <-a.in:
		if ok {
			a.t.Fatalf("said instead of closing: %.300s", m)
		}
		return websocket.CloseStatus(a.err)
	case <-time.After(15 * time.Second):
		a.t.Fatal("the connection stays open")
		return 0
	}
}

// servePeerJS takes the identity from the query: the token is the proof, unless it is "bad" or names a room, as ROOM:SUB.
func (n *node) servePeerJS(w http.ResponseWriter, r *http.Request) {
	n.hub.ServePeerJS(w, r, func(token string) (Identity, string, bool) {
		room, sub, ok := strings.Cut(token, ":")
		if !ok {
			room, sub = "", token
		}
		return Identity{User: sub, Room: room, Session: "key"}, sub, token != "bad"
	})
}

func dialPeerJS(t testing.TB, n *node, id, token string) *adapted {
	t.Helper()
	return dialAdapted(t, n, "/peerjs/peerjs?key=peerjs&version=1.5.5&id="+url.QueryEscape(id)+"&token="+url.QueryEscape(token))
}

func peerJS(t testing.TB, n *node, id, token string) *adapted {
	t.Helper()
	a := dialPeerJS(t, n, id, token)
	a.expect(`{"type":"OPEN"}`)
	return a
}

func TestPeerJSMessagesAreForwardedExactly(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, Limits{})
			a, b := peerJS(t, c.nodes[0], "a", "1"), peerJS(t, c.nodes[nodes-1], "b 2-c_d", "2")
			for _, tc := range []struct{ said, heard string }{
				{`{"type":"OFFER","dst":"b 2-c_d","payload":{"sdp":"x\u00e9\n é","n":1.50}}`, `{"type":"OFFER","src":"a","dst":"b 2-c_d","payload":{"sdp":"x\u00e9\n é","n":1.50}}`},
				{`{"type":"ANSWER","payload":null,"src":"forged","dst":"b 2-c_d","more":1}`, `{"type":"ANSWER","src":"a","dst":"b 2-c_d","payload":null}`},
				{` { "payload" : [ 1, 2 ] , "dst" : "b\u00202-c_d" , "type" : "CANDIDATE" } `, `{"type":"CANDIDATE","src":"a","dst":"b 2-c_d","payload":[ 1, 2 ]}`},
				{`{"type":"LEAVE","dst":"b 2-c_d"}`, `{"type":"LEAVE","src":"a","dst":"b 2-c_d"}`},
				{`{"type":"EXPIRE","dst":"b 2-c_d","payload":""}`, `{"type":"EXPIRE","src":"a","dst":"b 2-c_d","payload":""}`},
			} {
				a.send(tc.said)
				b.expect(tc.heard)
			}
			// What is none of these is passed over.
			for _, s := range []string{
				``, `x`, `[]`, `null`, `"OFFER"`, `{}`, `{"type":"HEARTBEAT"}`, `{"type":"OFFER"}`, `{"type":"OFFER","dst":7}`, `{"type":"OFFER","dst":"b 2-c_d"`,
				`{"type":"OPEN","dst":"b 2-c_d"}`, `{"type":"offer","dst":"b 2-c_d"}`, `{"type":"ERROR","dst":"b 2-c_d"}`, `{"type":"CANDIDATE","dst":"not an id!"}`, "\xff",
			} {
				a.send(s)
			}
			a.send(`{"type":"OFFER","dst":"b 2-c_d","payload":"last"}`)
			b.expect(`{"type":"OFFER","src":"a","dst":"b 2-c_d","payload":"last"}`)
			// PeerServer does not tell binary frames from others.
			if err := a.ws.Write(ctx10(t), websocket.MessageBinary, []byte(`{"type":"OFFER","dst":"b 2-c_d","payload":"binary"}`)); err != nil {
				t.Fatal(err)
			}
			b.expect(`{"type":"OFFER","src":"a","dst":"b 2-c_d","payload":"binary"}`)
			if p := c.nodes[0].hub.Stats().Protocols["peerjs"]; p.Ignored != 14 || p.Connections < 1 || p.Messages < 20 {
				t.Errorf("counted: %+v", p)
			}
		})
	}
}

func TestPeerJSRefusals(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{Connections: 2})
	peerJS(t, c.nodes[0], "held", "1")
	const missing, key = `{"type":"ERROR","payload":{"msg":"No id, token, or key supplied to websocket server"}}`, `{"type":"ERROR","payload":{"msg":"Invalid key provided"}}`
	for query, want := range map[string]string{
		"":                            missing,
		"key=peerjs&id=x":             missing,
		"key=peerjs&token=t":          missing,
		"id=x&token=t":                missing,
		"key=peerjs&id=x--y&token=t":  missing,
		"key=peerjs&id=-x&token=t":    missing,
		"key=peerjs&id=x%2Fy&token=t": missing,
		"key=peerjs&token=t&id=" + strings.Repeat("x", 257): missing,
		"key=other&id=x&token=t":                            key,
		"key=peerjs&id=x&token=bad":                         key,
		"key=peerjs&id=held&token=2":                        `{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}`,
	} {
		a := dialAdapted(t, c.nodes[0], "/peerjs/peerjs?"+query)
		a.expect(want)
		if code := a.closed(); code != websocket.StatusNormalClosure {
			t.Errorf("%s: closed with %d", query, code)
		}
		eventually(t, "it is gone", func() bool { return c.nodes[0].hub.Connections() == 1 })
	}
	peerJS(t, c.nodes[0], "second", "1")
	a := dialPeerJS(t, c.nodes[0], "third", "1")
	a.expect(`{"type":"ERROR","payload":{"msg":"Server has reached its concurrent user limit"}}`)
	a.closed()
	if p := c.nodes[0].hub.Stats().Protocols["peerjs"]; p.Refused[refusedFull] != 1 || p.Refused[refusedTaken] != 1 || p.Refused[refusedToken] != 10 {
		t.Errorf("counted: %+v", p)
	}
}

func TestPeerJSPlaceIsTakenOverWithTheSameToken(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, Limits{})
			first, last := c.nodes[0], c.nodes[nodes-1]
			a, b := peerJS(t, first, "a", "1"), peerJS(t, first, "b", "2")
			b.send(`{"type":"OFFER","dst":"a","payload":1}`)
			a.expect(`{"type":"OFFER","src":"b","dst":"a","payload":1}`)
			again := peerJS(t, last, "a", "1")
			a.closed() // and b hears of no LEAVE
			for i := range 20 {
				b.send(fmt.Sprintf(`{"type":"OFFER","dst":"a","payload":%d}`, i))
				again.expect(fmt.Sprintf(`{"type":"OFFER","src":"b","dst":"a","payload":%d}`, i))
			}
			again.send(`{"type":"ANSWER","dst":"b","payload":2}`)
			b.expect(`{"type":"ANSWER","src":"a","dst":"b","payload":2}`)
			other := dialPeerJS(t, last, "a", "other")
			other.expect(`{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}`)
			other.closed()
			other = dialPeerJS(t, first, "a", "other")
			other.expect(`{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}`)
			// While somebody else tried, nothing was lost.
			b.send(`{"type":"OFFER","dst":"a","payload":"still"}`)
			again.expect(`{"type":"OFFER","src":"b","dst":"a","payload":"still"}`)
		})
	}
}

func TestPeerJSOfferToAnIdThatNobodyCanHaveExpires(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a := peerJS(t, c.nodes[0], "a", "tea:1")
	for _, dst := range []string{`not--an-id`, `b/a`, `é\"\\`, ` `} {
		a.send(`{"type":"CANDIDATE","dst":"` + dst + `","payload":1}`)
		a.send(`{"type":"OFFER","dst":"` + dst + `","payload":1}`)
		a.expect(`{"type":"EXPIRE","src":"` + dst + `","dst":"a"}`)
	}
	a.send(`{"type":"OFFER","dst":"` + strings.Repeat("x", 300) + `"}`) // that long nobody asks for
	a.send(`{"type":"OFFER","dst":"a"}`)
	a.expect(`{"type":"OFFER","src":"a","dst":"a"}`)
}

func TestPeerJSStrangersDoNotKeepAnIdFromItsOwner(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Limits{})
	first, last := c.nodes[0], c.nodes[1]
	a := peerJS(t, first, "a", "owner")
	var strangers []*adapted
	for i := range 5 {
		strangers = append(strangers, dialPeerJS(t, last, "a", fmt.Sprint("stranger", i)))
		again := peerJS(t, last, "a", "owner")
		a.closed()
		a = again
		first, last = last, first
	}
	for _, x := range strangers {
		x.expect(`{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}`)
	}
}

func TestPeerJSIdIsFreeWhenItsSocketHasClosed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Limits{})
	b := peerJS(t, c.nodes[0], "b", "2")
	for i, end := range []func(a *adapted){
		func(a *adapted) { _ = a.ws.CloseNow() },
		func(a *adapted) { _ = a.ws.Close(websocket.StatusNormalClosure, "") },
		func(a *adapted) { a.send(`{"type":"LEAVE"}`); a.closed() },
	} {
		a := peerJS(t, c.nodes[0], "a", fmt.Sprint("old", i))
		end(a)
		a = peerJS(t, c.nodes[1], "a", fmt.Sprint("new", i)) // another token
		b.send(fmt.Sprintf(`{"type":"OFFER","dst":"a","payload":%d}`, i))
		a.expect(fmt.Sprintf(`{"type":"OFFER","src":"b","dst":"a","payload":%d}`, i))
		a.send(`{"type":"LEAVE"}`)
		a.closed()
	}
}

func TestPeerJSGoesOnWhenANodeIsKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Limits{})
	b := peerJS(t, c.nodes[0], "b", "2")
	a := peerJS(t, c.nodes[1], "a", "1")
	b.send(`{"type":"OFFER","dst":"a","payload":0}`)
	a.expect(`{"type":"OFFER","src":"b","dst":"a","payload":0}`)
	c.nodes[1].kill()
	b.send(`{"type":"OFFER","dst":"a","payload":1}`)
	a = peerJS(t, c.nodes[2], "a", "1")
	a.expect(`{"type":"OFFER","src":"b","dst":"a","payload":1}`)
}

func TestPeerJSIdsOfTwoRoomsAreApart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a, b := peerJS(t, c.nodes[0], "a", "tea:1"), peerJS(t, c.nodes[0], "b", "coffee:1")
	a2 := peerJS(t, c.nodes[0], "a", "coffee:9")
	b.send(`{"type":"OFFER","dst":"a","payload":1}`)
	a2.expect(`{"type":"OFFER","src":"b","dst":"a","payload":1}`)
	a.send(`{"type":"OFFER","dst":"b","payload":1}`)
	a.expect(`{"type":"EXPIRE","src":"b","dst":"a"}`)
}

func TestPeerJSSilenceEndsAConnection(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a := peerJS(t, c.nodes[0], "a", "1")
	h := c.nodes[0].hub
	h.eachConn(func(c *conn) { c.lastRead.Add(-int64(foreignSilence)) })
	select {
	case <-a.in:
	case <-time.After(15 * time.Second):
		t.Fatal("the connection stays open")
	}
}

func TestAFloodOfOnePeerJSClientDoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{MessageRate: 60})
	flood, sink := peerJS(t, c.nodes[0], "flood", "1"), peerJS(t, c.nodes[0], "sink", "1")
	a, b := peerJS(t, c.nodes[0], "a", "1"), peerJS(t, c.nodes[0], "b", "1")
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // until it is cut off for it
		defer close(done)
		m := []byte(`{"type":"OFFER","dst":"sink","payload":"` + strings.Repeat("x", 1000) + `"}`)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if flood.ws.Write(context.Background(), websocket.MessageText, m) != nil {
				return
			}
		}
	}()
	go func() {
		for range sink.in {
		}
	}()
	eventually(t, "the flood is over its rate", func() bool { return c.nodes[0].hub.Stats().Protocols["peerjs"].Refused[refusedRate] > 10 })
	for i := range 50 {
		a.send(fmt.Sprintf(`{"type":"OFFER","dst":"b","payload":%d}`, i))
		b.expect(fmt.Sprintf(`{"type":"OFFER","src":"a","dst":"b","payload":%d}`, i))
	}
	close(stop)
	<-done
	_ = sink.ws.CloseNow()
}

func TestARevokedPeerJSClientIsClosed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Limits{})
	a := peerJS(t, c.nodes[0], "a", "1")
	if n := c.nodes[0].hub.Revoke(func(id Identity) bool { return id.Session == "key" }); n != 1 {
		t.Errorf("%d ended", n)
	}
	if code := a.closed(); code != websocket.StatusCode(closeAuth) {
		t.Errorf("closed with %d", code)
	}
}

func FuzzDecodePeerJS(f *testing.F) {
	for _, s := range []string{`{"type":"OFFER","dst":"b","payload":{"a":[1,"x"]}}`, `{"type":"LEAVE"}`, `{"dst":null}`, `x`, "{\"type\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := decodePeerJS(b)
		if !ok {
			return
		}
		if !json.Valid(b) {
			t.Fatalf("taken though it is not JSON: %q", b)
		}
		for _, raw := range [][]byte{m.typ, m.dst, m.payload} {
			if raw != nil && !json.Valid(raw) {
				t.Fatalf("%q out of %q", raw, b)
			}
		}
	})
}

func FuzzWholeFrame(f *testing.F) {
	f.Add([]byte{0x81, 0x82, 1, 2, 3, 4, 5, 6})
	f.Add([]byte{0x8a, 0x80, 1, 2, 3, 4})
	f.Add(append([]byte{0x81, 0xfe, 0, 126, 1, 2, 3, 4}, make([]byte, 126)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 10
		masked := append([]byte(nil), b...)
		op, payload, n := wholeFrame(b, limit)
		if op == 0 {
			return
		}
		if n > len(b) || len(payload) > limit || op != opText && op != opPong {
			t.Fatalf("op %d, %d of %d bytes, payload of %d", op, n, len(b), len(payload))
		}
		key := masked[n-len(payload)-4:]
		for i := range payload {
			if payload[i] != masked[n-len(payload)+i]^key[i%4] {
				t.Fatalf("byte %d of %d is not unmasked", i, len(payload))
			}
		}
	})
}
