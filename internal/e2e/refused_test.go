package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
)

func TestWrongPasswordIsRefusedByTheForm(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	ada := &caller{Page: testkit.NewBrowser(t).Page(t, "ada"), t: t, user: "ada"}
	ada.Open(s.URL("/call/private"))
	ada.fillLogin("not the password")
	ada.Until(20*time.Second, "is told", "!!document.querySelector('.error') && location.pathname === '/login'")
	// Where the user wanted to go is not forgotten by it.
	ada.fillLogin(password)
	ada.Until(20*time.Second, "is let in", "location.pathname === '/call/private'")
}

func TestLoginLeadsOnlyToOwnPages(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	for _, next := range []string{"//example.org/", "https://example.org/", `/\example.org`, "/%5cexample.org", "\t//example.org", "javascript:alert(1)"} {
		client := s.Client()
		form := strings.NewReader("username=ada&password=" + strings.ReplaceAll(password, " ", "+") + "&next=" + urlEncode(next))
		response, err := client.Post(s.URL("/login"), "application/x-www-form-urlencoded", form)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if to := response.Header.Get("Location"); response.StatusCode != http.StatusSeeOther || to != "/" {
			t.Errorf("next=%q: %s to %q, want 303 to /", next, response.Status, to)
		}
	}
}

func urlEncode(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// roomToken mints a token for a room on the command line, with an API key made for it.
func roomToken(t *testing.T, s *testkit.Server, room, user string) (token, keyID, secret string) {
	t.Helper()
	out := s.MustCLI("", "key", "add", "test")
	for field := range strings.FieldsSeq(out) {
		if id, rest, ok := strings.Cut(field, "."); ok && len(id) >= 4 && len(rest) >= 20 {
			keyID, secret = id, rest
		}
	}
	if keyID == "" {
		t.Fatalf("callbox key add printed no ID.SECRET: %q", out)
	}
	token = strings.TrimSpace(s.MustCLI("", "token", "--room", room, "--user", user, "--ttl", "1h"))
	return token, keyID, secret
}

// status returns how /ws or an API route answers; 101 is a WebSocket.
func status(t *testing.T, s *testkit.Server, e entrance) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o := &websocket.DialOptions{HTTPClient: e.client, HTTPHeader: e.header, Subprotocols: []string{"callbox.v1"}}
	if e.token != "" {
		o.Subprotocols = append(o.Subprotocols, "token."+e.token)
	}
	conn, response, err := websocket.Dial(ctx, s.URL("/ws"), o)
	if err == nil {
		_ = conn.CloseNow()
	}
	if response == nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

func iceServers(t *testing.T, s *testkit.Server, client *http.Client, token, query string) (int, message, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL("/api/v1/ice-servers"+query), nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("%s: %q is not JSON: %v", response.Status, body, err)
	}
	return response.StatusCode, m, string(body)
}

func TestStrangersGetNothing(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	token, keyID, secret := roomToken(t, s, "lobby", "guest")
	ada := s.LogIn("ada", password)

	mint := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		made := jwt.NewWithClaims(method, claims)
		made.Header["kid"] = keyID
		text, err := made.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	expired := mint(jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "guest", "room": "lobby", "exp": in(-time.Hour)})
	good := mint(jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "guest", "room": "lobby", "exp": in(time.Hour)})
	endless := mint(jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "guest", "room": "lobby"})
	unsigned := mint(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.MapClaims{"sub": "guest", "room": "lobby", "exp": in(time.Hour)})
	otherMethod := mint(jwt.SigningMethodHS512, []byte(secret), jwt.MapClaims{"sub": "guest", "room": "lobby", "exp": in(time.Hour)})
	forged := mint(jwt.SigningMethodHS256, []byte("another secret, just as long as it"), jwt.MapClaims{"sub": "guest", "room": "lobby", "exp": in(time.Hour)})

	foreign := http.Header{"Origin": {"https://elsewhere.example"}}
	own := http.Header{"Origin": {s.URL("")}}
	for _, tc := range []struct {
		name string
		e    entrance
		want int
	}{
		{"no cookie and no token", entrance{client: s.Client()}, 401},
		{"cookie and own origin", entrance{client: ada, header: own}, 101},
		{"cookie without an origin", entrance{client: ada}, 403},
		{"cookie and foreign origin", entrance{client: ada, header: foreign}, 403},
		{"token without an origin", entrance{client: s.Client(), token: token}, 101},
		{"token of another maker's library", entrance{client: s.Client(), token: good}, 101},
		{"token and foreign origin", entrance{client: s.Client(), token: token, header: foreign}, 403},
		{"expired token", entrance{client: s.Client(), token: expired}, 401},
		{"token without an end", entrance{client: s.Client(), token: endless}, 401},
		{"unsigned token", entrance{client: s.Client(), token: unsigned}, 401},
		{"token of another algorithm", entrance{client: s.Client(), token: otherMethod}, 401},
		{"forged token", entrance{client: s.Client(), token: forged}, 401},
		{"garbage for a token", entrance{client: s.Client(), token: "x"}, 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := status(t, s, tc.e); got != tc.want {
				t.Errorf("WebSocket: %d, want %d", got, tc.want)
			}
		})
	}

	for name, token := range map[string]string{"none": "", "expired": expired, "forged": forged, "unsigned": unsigned} {
		code, m, body := iceServers(t, s, s.Client(), token, "")
		if code != http.StatusUnauthorized || len(m.Servers) != 0 || !strings.Contains(body, "error") {
			t.Errorf("ice-servers with token %s: %d %s", name, code, body)
		}
	}
	if code, m, body := iceServers(t, s, s.Client(), token, "?room=lobby"); code != http.StatusOK || len(m.Servers) == 0 {
		t.Errorf("ice-servers with a token for the room: %d %s", code, body)
	}
	if code, _, body := iceServers(t, s, s.Client(), token, "?room=elsewhere"); code != http.StatusForbidden {
		t.Errorf("ice-servers with a token for another room: %d %s", code, body)
	}
	if code, m, body := iceServers(t, s, ada, "", ""); code != http.StatusOK || len(m.Servers) == 0 {
		t.Errorf("ice-servers with a cookie: %d %s", code, body)
	}

	// The API says no in JSON, and to too many guesses it says when to come back.
	client := s.Client()
	throttled := false
	for range 60 {
		body, _ := json.Marshal(map[string]string{"username": "ada", "password": "guess"})
		response, err := client.Post(s.URL("/api/v1/login"), "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if !json.Valid(text) || !bytes.Contains(text, []byte("error")) {
			t.Fatalf("%s: %q is not a JSON error", response.Status, text)
		}
		if response.StatusCode == http.StatusTooManyRequests {
			if response.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			throttled = true
			break
		}
		if response.StatusCode != http.StatusUnauthorized {
			t.Fatalf("a wrong password: %s: %s", response.Status, text)
		}
	}
	if !throttled {
		t.Error("60 wrong passwords were never throttled")
	}
}

func TestRoomTokenOpensItsRoomOnly(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	token, _, _ := roomToken(t, s, "lobby", "guest")
	guest := connect(t, "guest", entrance{urls: []string{s.URL("")}, client: s.Client(), token: token})
	guest.join("lobby")
	guest.send(map[string]any{"type": "join", "room": "elsewhere", "id": "x"})
	if m := guest.await(5*time.Second, "an answer", func(m message) bool { return m.ID == "x" }); m.Code != "not-allowed" {
		t.Errorf("another room: %+v", m)
	}
}

func TestFaultsAreNamedAndTheConnectionLives(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	token, _, _ := roomToken(t, s, "lobby", "guest")
	guest := connect(t, "guest", entrance{urls: []string{s.URL("")}, client: s.Client(), token: token})
	guest.join("lobby")
	for _, tc := range []struct{ frame, code string }{
		{"garbage", "bad-json"},
		{`[1,2]`, "bad-json"},
		{`{"type":"juggle"}`, "bad-type"},
		{`{"type":"hello"}`, "bad-type"},
		{`{"type":"join","room":7}`, "bad-field"},
		{`{"type":"join","room":"` + strings.Repeat("r", 65) + `"}`, "too-long"},
		{`{"type":"signal","data":1}`, "bad-field"},
	} {
		guest.mu.Lock()
		seen := len(guest.messages)
		conn := guest.conn
		guest.mu.Unlock()
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(tc.frame)); err != nil {
			t.Fatal(err)
		}
		guest.until(5*time.Second, "gets an error for "+tc.frame, func() bool {
			return len(guest.messages) > seen
		})
		guest.mu.Lock()
		m := guest.messages[seen]
		guest.mu.Unlock()
		if m.Type != "error" || m.Code != tc.code || m.Message == "" {
			t.Errorf("%.60s: %+v, want %s", tc.frame, m, tc.code)
		}
	}
	guest.join("lobby")
	guest.clean()
}

func TestOversizedBodiesAndFramesAreRefused(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	response, err := s.Client().Post(s.URL("/api/v1/login"), "application/json", strings.NewReader(`{"username":"`+strings.Repeat("a", 4<<20)+`"}`))
	if err == nil {
		_ = response.Body.Close()
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("4 MiB of JSON: %s", response.Status)
		}
	}
	token, _, _ := roomToken(t, s, "lobby", "guest")
	conn, err := (entrance{urls: []string{s.URL("")}, client: s.Client(), token: token}).dialer()(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if err := write(t.Context(), conn, map[string]any{"type": "hello"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = write(t.Context(), conn, map[string]any{"type": "broadcast", "room": "lobby", "data": strings.Repeat("x", 300<<10)})
	for {
		if _, _, err = conn.Read(t.Context()); err != nil {
			break
		}
	}
	if code := websocket.CloseStatus(err); code != websocket.StatusMessageTooBig {
		t.Errorf("a frame of 300 KiB: %v", err)
	}
}
