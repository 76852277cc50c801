// Package callboxtest starts real callbox servers on loopback for the tests of other programs, in the manner of
// net/http/httptest: New one alone, NewCluster several that share a Redis in the test process. Everything they open is on
// ports that the system chooses, in a folder of the test, and ends with the test.
//
//	s := callboxtest.New(t)
//	s.AddUser("ada", "correct horse battery")
//	token := s.RoomToken("tea", "guest")
//	turn := s.TURN("guest")
//
// It is not for anything but tests.
package callboxtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/auth"
	"callbox/internal/app"
	"callbox/internal/config"
	"callbox/internal/control"
)

// realm is that of every server here.
const realm = "callbox"

// requestTimeout bounds every request that this package makes itself.
const requestTimeout = 30 * time.Second

// Server is a running callbox.
type Server struct {
	URL       string // http://127.0.0.1:PORT
	WebSocket string // ws://127.0.0.1:PORT/ws
	Addr      string // 127.0.0.1:PORT, of HTTP, WebSocket, STUN and TURN, over TCP and UDP
	Data      string // its data directory; ca.crt in it verifies https:// on the same port

	t       testing.TB
	secrets [][]byte
	control *control.Client
	stop    func() error

	mu  sync.Mutex
	key *control.NewKey // made with the first room token
}

// Option changes a server before it starts.
type Option func(*settings)

type settings struct {
	flags map[string][]string
}

// WithFlag sets a flag of `callbox serve` by its name without dashes, as WithFlag("origin", "https://app.example"); a
// repeatable flag takes several values. --listen, --data, --realm and --turn-secret-file are this package's own.
func WithFlag(name string, values ...string) Option {
	return func(s *settings) { s.flags[name] = values }
}

// New starts a server alone. It ends with the test, which fails where it does not end well.
func New(t testing.TB, options ...Option) *Server {
	t.Helper()
	return start(t, newSecret(t), options)
}

// newSecret makes a file with the secret of a server or cluster.
func newSecret(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString([]byte(rand.Text()))+"\n"), 0o600); err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	return path
}

func start(t testing.TB, secret string, options []Option) *Server {
	t.Helper()
	s := settings{flags: map[string][]string{}}
	s.flags["metrics-listen"] = []string{"off"} // an option may ask for it
	for _, o := range options {
		o(&s)
	}
	data := filepath.Join(t.TempDir(), "data")
	s.flags["listen"], s.flags["data"], s.flags["realm"] = []string{"127.0.0.1:0"}, []string{data}, []string{realm}
	s.flags["turn-secret-file"] = []string{secret}
	if s.flags["doctor-every"] == nil {
		s.flags["doctor-every"] = []string{"0s"} // it would make allocations beside the test's own
	}
	cfg, _, err := config.Load(config.Sources{Flags: s.flags})
	if err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	line, err := os.ReadFile(secret)
	if err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	a, err := app.New(context.Background(), cfg, app.Options{Version: "callboxtest"})
	if err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	addr := a.Addr().String()
	out := &Server{
		URL: "http://" + addr, WebSocket: "ws://" + addr + "/ws", Addr: addr, Data: data,
		t: t, secrets: [][]byte{[]byte(strings.TrimSpace(string(line)))}, control: control.NewClient(data),
		stop: sync.OnceValue(func() error { cancel(); return <-ended }),
	}
	t.Cleanup(out.Close)
	return out
}

// Close stops the server as SIGTERM does, and waits. It may be called before the test ends, and more than once.
func (s *Server) Close() {
	s.t.Helper()
	if err := s.stop(); err != nil {
		s.t.Errorf("callboxtest: stopped with: %v", err)
	}
}

// AddUser makes a user who can log in.
func (s *Server) AddUser(name, password string) { s.addUser(name, password, false) }

// AddAdmin makes an administrator.
func (s *Server) AddAdmin(name, password string) { s.addUser(name, password, true) }

func (s *Server) addUser(name, password string, admin bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if err := s.control.AddUser(ctx, control.UserAdd{Name: name, Password: password, Admin: admin}); err != nil {
		s.t.Fatalf("callboxtest: user %s: %v", name, err)
	}
}

// RemoveUser removes a user; the user's sessions, calls and relays end.
func (s *Server) RemoveUser(name string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if err := s.control.RemoveUser(ctx, name); err != nil {
		s.t.Fatalf("callboxtest: user %s: %v", name, err)
	}
}

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

// APIKey returns an API key of the server as "ID.SECRET", made with the first call.
func (s *Server) APIKey() string {
	s.t.Helper()
	return s.apiKey().Key
}

func (s *Server) apiKey() control.NewKey {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key == nil {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		key, err := s.control.AddKey(ctx, "callboxtest")
		if err != nil {
			s.t.Fatalf("callboxtest: API key: %v", err)
		}
		s.key = &key
	}
	return *s.key
}

// RoomToken mints a token that opens one room for an hour. On HTTP it travels as "Authorization: Bearer", on a WebSocket as
// the subprotocol value "token." followed by it, beside "callbox.v1".
func (s *Server) RoomToken(room, user string) string {
	s.t.Helper()
	key, now := s.apiKey(), time.Now()
	token, err := auth.MintWith(key.ID, key.Secret, auth.RoomToken{Subject: user, Room: room, Expires: now.Add(time.Hour)}, now)
	if err != nil {
		s.t.Fatalf("callboxtest: room token: %v", err)
	}
	return token
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
