package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"callbox/internal/config"
)

func allCompat(c *config.Config) {
	c.Compat = []config.Compat{config.PeerJS, config.YWebRTC, config.Ayame, config.Matchbox}
}

func openCompat(c *config.Config) {
	allCompat(c)
	c.CompatOpen = true
}

const foreignOrigin = "https://elsewhere.example"

// foreign opens a WebSocket of another server's protocol, and returns the HTTP status where it is refused.
func (r *running) foreign(path string, header ...string) (*websocket.Conn, int) {
	r.t.Helper()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, r.url(path), &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		if resp == nil {
			r.t.Fatal(err)
		}
		return nil, resp.StatusCode
	}
	r.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, resp.StatusCode
}

// hear returns the next text, or "" when the connection ends.
func (r *running) hear(conn *websocket.Conn) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	_, text, err := conn.Read(ctx)
	if err != nil && websocket.CloseStatus(err) == -1 {
		r.t.Fatal(err)
	}
	return string(text)
}

func (r *running) speak(conn *websocket.Conn, text string) {
	r.t.Helper()
	if err := conn.Write(r.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		r.t.Fatal(err)
	}
}

func TestProtocolsOfOtherServersAreOffUnlessNamed(t *testing.T) {
	r := serve(t, nil)
	for _, path := range []string{"/peerjs", "/peerjs/peerjs/id", "/peerjs/peerjs?key=peerjs&id=a&token=b", "/y-webrtc", "/ayame/signaling", "/matchbox/r"} {
		if a := r.get(r.browser(), path); a.Status != http.StatusNotFound {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
}

func TestPeerJSOverHTTP(t *testing.T) {
	r := serve(t, func(c *config.Config) {
		allCompat(c)
		c.Origins = []config.Origin{"https://app.example"}
	})
	for _, path := range []string{"/peerjs", "/peerjs/"} {
		a := r.get(r.browser(), path, "Origin", "https://app.example")
		var about map[string]string
		if err := json.Unmarshal([]byte(a.Body), &about); err != nil || about["name"] == "" || about["description"] == "" || about["website"] == "" || len(about) != 3 {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
		if got := a.Header.Get("Access-Control-Allow-Origin"); got != "https://app.example" {
			t.Errorf("%s: allowed %q", path, got)
		}
	}
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	a, b := r.get(r.browser(), "/peerjs/peerjs/id?ts=1"), r.get(r.browser(), "/peerjs/peerjs/id?ts=2")
	if !uuid.MatchString(a.Body) || a.Body == b.Body || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
		t.Errorf("ids %q and %q as %s", a.Body, b.Body, a.Header.Get("Content-Type"))
	}
	for _, path := range []string{"/peerjs/peerjs/id/", "/peerjs/other/id"} { // the key is judged on the WebSocket
		if a := r.get(r.browser(), path); !uuid.MatchString(a.Body) {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	for _, path := range []string{"/peerjs/peerjs/peers", "/peerjs/peerjs/peers/"} {
		if a := r.get(r.browser(), path); a.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
	if a := r.get(r.browser(), "/peerjs/peerjs/id", "Origin", foreignOrigin); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a page of another origin may read the answer")
	}
}

func TestPeerJSNeedsARoomToken(t *testing.T) {
	r := serve(t, allCompat)
	path := func(id, token string) string { return "/peerjs/peerjs?key=peerjs&id=" + id + "&token=" + token }
	for _, tc := range []struct{ id, token, want string }{
		{"a", r.mint("hall", "ada", time.Hour), "OPEN"},
		{"b", "random", "Invalid key provided"},
		{"b", r.mint("hall", "ada", -time.Hour), "Invalid key provided"},
		{"a", r.mint("hall", "ada", time.Minute), "OPEN"}, // the same subject, whatever the token
		{"a", r.mint("hall", "eve", time.Hour), "ID-TAKEN"},
	} {
		conn, status := r.foreign(path(tc.id, tc.token))
		if conn == nil {
			t.Fatalf("%s: %d", tc.want, status)
		}
		if m := r.hear(conn); !strings.Contains(m, tc.want) {
			t.Errorf("said %s, want %s", m, tc.want)
		}
	}
	if _, status := r.foreign(path("c", r.mint("hall", "c", time.Hour)), "Origin", foreignOrigin); status != http.StatusForbidden {
		t.Errorf("a page of another origin: %d", status)
	}
}

func TestWithCompatOpenEverybodyIsAdmittedFromEverywhere(t *testing.T) {
	r := serve(t, openCompat)
	conn, status := r.foreign("/peerjs/peerjs?key=peerjs&id=a&token=mine", "Origin", foreignOrigin)
	if conn == nil {
		t.Fatal(status)
	}
	if m := r.hear(conn); m != `{"type":"OPEN"}` {
		t.Errorf("said %s", m)
	}
	if conn, _ = r.foreign("/peerjs/peerjs?key=peerjs&id=a&token=other", "Origin", foreignOrigin); !strings.Contains(r.hear(conn), "ID-TAKEN") {
		t.Error("another token takes an id over")
	}
	if a := r.get(r.browser(), "/peerjs/peerjs/id", "Origin", foreignOrigin); a.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Error("a page of another origin cannot read an id")
	}
	// Nowhere else.
	if _, status := r.foreign("/ws", "Origin", foreignOrigin); status != http.StatusForbidden {
		t.Errorf("/ws: %d", status)
	}
	// Revocations concern nobody who has shown nothing.
	conn, _ = r.foreign("/peerjs/peerjs?key=peerjs&id=b&token=mine")
	r.hear(conn)
	r.reap()
	r.speak(conn, `{"type":"OFFER","dst":"b","payload":1}`)
	if m := r.hear(conn); !strings.Contains(m, `"src":"b"`) {
		t.Errorf("said %s", m)
	}
}

// noTURN fails when a text could hold credentials.
func noTURN(t *testing.T, where, text string) {
	t.Helper()
	for _, sign := range []string{"turn:", "turns:", "credential", "iceServers", "username"} {
		if strings.Contains(text, sign) {
			t.Errorf("%s gives away TURN credentials: %s", where, text)
		}
	}
}

func TestWithCompatOpenNobodyGetsTURNCredentials(t *testing.T) {
	r := serve(t, openCompat)
	from := []string{"Origin", foreignOrigin}
	// What the server says until it has answered the last of what is said to it.
	talk := func(path string, last string, says ...string) {
		t.Helper()
		conn, status := r.foreign(path, from...)
		if conn == nil {
			t.Fatalf("%s: %d", path, status)
		}
		for _, s := range says {
			r.speak(conn, s)
		}
		for {
			text := r.hear(conn)
			noTURN(t, path, text)
			if text == "" || strings.Contains(text, last) {
				return
			}
		}
	}
	token := "anything"
	talk("/peerjs/peerjs?key=peerjs&id=a&token="+token, "last", `{"type":"ice-servers"}`, `{"type":"OFFER","dst":"a","payload":"last"}`)
	talk("/y-webrtc?token="+token, "last", `{"type":"subscribe","topics":["@ayame/r","x"]}`, `{"type":"publish","topic":"x","data":"last"}`)
	talk("/ayame/signaling", "accept", `{"type":"register","roomId":"r","key":"`+token+`"}`)
	talk("/ayame/signaling", "accept", `{"type":"register","roomId":"r2","signalingKey":"`+r.mint("r2", "ada", time.Hour)+`"}`)
	talk("/matchbox/r?token="+token, "IdAssigned")
	for _, path := range []string{"/peerjs", "/peerjs/peerjs/id", "/peerjs/peerjs/peers", "/y-webrtc", "/ayame/signaling", "/matchbox/r"} {
		noTURN(t, path, r.get(r.browser(), path, from...).Body)
	}
	for _, path := range []string{"/api/v1/ice-servers", "/api/v1/ice-servers?room=r"} {
		for _, header := range [][]string{from, {"Authorization", "Bearer " + token}, nil} {
			a := r.get(r.browser(), path, header...)
			if a.Status != http.StatusUnauthorized {
				t.Errorf("%s with %q: %d", path, header, a.Status)
			}
			noTURN(t, path, a.Body)
		}
	}
}

func TestAyameGetsICEServersOfItsRoom(t *testing.T) {
	r := serve(t, allCompat)
	conn, _ := r.foreign("/ayame/signaling")
	r.speak(conn, `{"type":"register","roomId":"tea","signalingKey":"`+r.mint("tea", "ada", time.Hour)+`"}`)
	var m struct {
		Type       string
		ICEServers []struct {
			URLs                 []string
			Username, Credential string
		}
	}
	text := r.hear(conn)
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.Type != "accept" || len(m.ICEServers) < 2 || m.ICEServers[1].Username == "" || m.ICEServers[1].Credential == "" {
		t.Errorf("%s", text)
	}
	for _, key := range []string{"", "no token", r.mint("coffee", "ada", time.Hour)} {
		conn, _ := r.foreign("/ayame/signaling")
		r.speak(conn, `{"type":"register","roomId":"tea","key":"`+key+`"}`)
		if m := r.hear(conn); m != `{"type":"reject","reason":"unauthorized"}` {
			t.Errorf("%s", m)
		}
	}
}

func TestTokensOfYWebRTCAndMatchbox(t *testing.T) {
	r := serve(t, allCompat)
	tea := r.mint("tea", "ada", time.Hour)
	for _, tc := range []struct {
		path   string
		status int
	}{
		{"/y-webrtc?token=" + tea, 101},
		{"/y-webrtc/any/path?token=" + tea, 101},
		{"/y-webrtc", 401},
		{"/y-webrtc?token=x", 401},
		{"/matchbox/tea?token=" + tea, 101},
		{"/matchbox/tea?next=2&token=" + tea, 101},
		{"/matchbox/tea?next=1&token=" + tea, 400},
		{"/matchbox/tea?next=x&token=" + tea, 400},
		{"/matchbox/tea?next=51&token=" + tea, 400},
		{"/matchbox/coffee?token=" + tea, 401},
		{"/matchbox/tea", 401},
		{"/matchbox/@tea?token=" + tea, 400},
	} {
		if _, status := r.foreign(tc.path); status != tc.status {
			t.Errorf("%s: %d, want %d", tc.path, status, tc.status)
		}
		if _, status := r.foreign(tc.path, "Origin", foreignOrigin); status != http.StatusForbidden {
			t.Errorf("%s of another origin: %d", tc.path, status)
		}
	}
}

func TestARemovedKeyEndsClientsOfOtherServersProtocols(t *testing.T) {
	r := serve(t, allCompat)
	conn, _ := r.foreign("/peerjs/peerjs?key=peerjs&id=a&token=" + r.mint("tea", "ada", time.Hour))
	r.hear(conn)
	for _, k := range r.web.keys.List() {
		if err := r.web.keys.Remove(t.Context(), k.ID); err != nil {
			t.Fatal(err)
		}
	}
	r.reap()
	if m := r.hear(conn); m != "" {
		t.Errorf("said %s", m)
	}
}

func TestCompatOpenIsSaidAtTheStart(t *testing.T) {
	for _, open := range []bool{false, true} {
		var log lockedBuffer
		cfg := onLoopback(t)
		allCompat(&cfg)
		cfg.CompatOpen = config.Switch(open)
		r := serveWith(t, cfg, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if a := r.get(r.browser(), "/healthz"); a.Status != http.StatusOK {
			t.Fatal(a.Status)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if said := strings.Contains(log.String(), "level=WARN msg=\"--compat-open"); said != open {
			t.Errorf("open %v, said %v: %s", open, said, log.String())
		}
	}
}
