package callboxtest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"time"

	"callbox/auth"
	"callbox/signal/client"
)

// LogIn returns a client that carries the user's cookie and follows no redirect.
func (s *Server) LogIn(name, password string) *http.Client {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatalf("callboxtest: %v", err)
	}
	transport := &http.Transport{}
	s.t.Cleanup(transport.CloseIdleConnections)
	c := &http.Client{
		Jar: jar, Transport: transport, Timeout: requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	body, err := json.Marshal(map[string]string{"username": name, "password": password})
	if err != nil {
		s.t.Fatalf("callboxtest: %v", err)
	}
	resp, err := c.Post(s.URL+"/api/v1/login", "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatalf("callboxtest: %v", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		s.t.Fatalf("callboxtest: %s cannot log in: %s", name, resp.Status)
	}
	return c
}

// Client connects a signaling client with a token for a room. It is not in the room yet: Join puts it there. It ends with the
// test. In a cluster it knows the other nodes and goes there when its own drains or dies.
func (s *Server) Client(room, user string) *client.Client {
	s.t.Helper()
	return s.Dial(client.Options{Token: s.RoomToken(room, user)})
}

// UserClient logs a user in and connects a signaling client that may be called by name. See Client.
func (s *Server) UserClient(name, password string) *client.Client {
	s.t.Helper()
	return s.Dial(client.Options{HTTPClient: s.LogIn(name, password)})
}

// Dial connects a signaling client as its options say. It ends with the test.
func (s *Server) Dial(o client.Options) *client.Client {
	s.t.Helper()
	if s.cluster != nil && len(o.Others) == 0 {
		for _, node := range s.cluster.Nodes {
			if node != s {
				o.Others = append(o.Others, node.URL)
			}
		}
	}
	if o.Backoff == 0 {
		o.Backoff = 50 * time.Millisecond // a test has no crowd that comes back at once
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	c, err := client.Dial(ctx, s.URL, o)
	if err != nil {
		s.t.Fatalf("callboxtest: signaling client: %v", err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// ICEServers asks the server what it gives to a holder of a room token.
func (s *Server) ICEServers(room, user string) client.ICE {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.URL+"/api/v1/ice-servers?room="+url.QueryEscape(room), nil)
	if err != nil {
		s.t.Fatalf("callboxtest: %v", err)
	}
	req.Header.Set("Authorization", "Bearer "+s.RoomToken(room, user))
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: requestTimeout}
	resp, err := c.Do(req)
	if err != nil {
		s.t.Fatalf("callboxtest: ICE servers: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Servers   []client.ICEServer `json:"iceServers"`
		ExpiresAt time.Time          `json:"expiresAt"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("callboxtest: ICE servers: %s, %v", resp.Status, err)
	}
	return client.ICE{Servers: answer.Servers, ExpiresAt: answer.ExpiresAt}
}

// Credential opens the relay.
type Credential struct {
	URLs     []string // turn: URLs of the server, UDP first
	Realm    string
	Username string
	Password string
	Expires  time.Time
}

// TURN issues a credential for an hour.
func (s *Server) TURN(user string) Credential {
	s.t.Helper()
	issuer := auth.TURN{Secrets: s.secrets, Realm: realm}
	username, password, expires := issuer.Credential(user, time.Hour, time.Now())
	return Credential{
		URLs:  []string{"turn:" + s.Addr + "?transport=udp", "turn:" + s.Addr + "?transport=tcp"},
		Realm: realm, Username: username, Password: password, Expires: expires,
	}
}
