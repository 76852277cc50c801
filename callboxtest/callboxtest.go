// Package callboxtest starts real callbox servers on loopback for the tests of other programs, in the manner of
// net/http/httptest: Start one alone, StartCluster several that share a Redis in the test process. Everything they open is on
// ports that the system chooses, in folders of their own, and ends with the test. Nothing reaches beyond loopback: no router is
// asked for a mapping, no certificate for, nobody for the public address; relays may reach loopback peers.
//
//	s := callboxtest.Start(t)
//	s.AddUser("ada", "correct horse battery")
//	token := s.RoomToken("tea", "guest")
//	ice := s.ICEServers("tea", "guest")
//	peer := s.Client("tea", "guest")
//
// It is not for anything but tests.
package callboxtest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	app     *app.App
	secrets [][]byte
	control *control.Client
	cluster *Cluster // nil: alone
	gate    *gate    // between it and the cluster's Redis; nil: alone
	conns   connections
	stop    func() error // idempotent

	killed atomic.Bool // by Cluster.Kill

	mu  sync.Mutex
	key *control.NewKey // guarded by mu; made with the first room token
}

// Option changes a server before it starts.
type Option func(*settings)

type settings struct {
	flags map[string][]string
}

// quiet are the settings that keep a server to itself, unless a test gives them.
var quiet = map[string]string{
	"drain-timeout":  "0s",
	"map-port":       "off",
	"stun-server":    "none",
	"qr":             "off",
	"metrics-listen": "off",
	"doctor-every":   "0s", // it would make allocations beside the test's own
}

// WithFlag sets a flag of `callbox serve` by its name without dashes, as WithFlag("origin", "https://app.example"); a
// repeatable flag takes several values. --listen, --data, --realm and --turn-secret-file are this package's own.
func WithFlag(name string, values ...string) Option {
	return func(s *settings) { s.flags[name] = values }
}

// Start starts a server alone. It ends with the test, which fails where it does not end well.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	return start(t, newSecret(t), nil, options)
}

// newSecret makes a file with the secret of a server or cluster.
func newSecret(t testing.TB) string {
	t.Helper()
	path := filepath.Join(folder(t), "secret")
	if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString([]byte(rand.Text()))+"\n"), 0o600); err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	return path
}

// folder is a new one with a short path, whatever the test is called: the control socket's has a limit of about 100 bytes.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "callbox")
	if err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func start(t testing.TB, secret string, g *gate, options []Option) *Server {
	t.Helper()
	s := settings{flags: map[string][]string{}}
	for _, o := range options {
		o(&s)
	}
	data := filepath.Join(folder(t), "data")
	s.flags["listen"], s.flags["data"], s.flags["realm"] = []string{"127.0.0.1:0"}, []string{data}, []string{realm}
	s.flags["turn-secret-file"] = []string{secret}
	s.flags["allow-peer"] = append(s.flags["allow-peer"], "127.0.0.0/8", "::1/128")
	for name, value := range quiet {
		if _, given := s.flags[name]; !given {
			s.flags[name] = []string{value}
		}
	}
	cfg, _, err := config.Load(config.Sources{Flags: s.flags})
	if err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	line, err := os.ReadFile(secret)
	if err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	out := &Server{Data: data, t: t, gate: g, secrets: [][]byte{[]byte(strings.TrimSpace(string(line)))}, control: control.NewClient(data)}
	out.app, err = app.New(context.Background(), cfg, app.Options{Version: "callboxtest", Accepted: out.conns.add})
	if err != nil {
		t.Fatalf("callboxtest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- out.app.Run(ctx) }()
	out.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	out.Addr = out.app.Addr().String()
	out.URL, out.WebSocket = "http://"+out.Addr, "ws://"+out.Addr+"/ws"
	t.Cleanup(out.Close)
	return out
}

// Close stops the server as SIGTERM does, and waits. It may be called before the test ends, and more than once.
func (s *Server) Close() {
	s.t.Helper()
	if err := s.stop(); err != nil && !s.killed.Load() {
		s.t.Errorf("callboxtest: stopped with: %v", err)
	}
}

// AddUser makes a user who can log in, at every node of a cluster.
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
	s.everywhere(ctx, "user "+name, func(c *control.Client) (bool, error) {
		users, err := c.Users(ctx)
		return slices.ContainsFunc(users, func(u control.User) bool { return u.Name == name }), err
	})
}

// RemoveUser removes a user; the user's sessions, calls and relays end.
func (s *Server) RemoveUser(name string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if err := s.control.RemoveUser(ctx, name); err != nil {
		s.t.Fatalf("callboxtest: user %s: %v", name, err)
	}
	s.everywhere(ctx, "the end of user "+name, func(c *control.Client) (bool, error) {
		users, err := c.Users(ctx)
		return err == nil && !slices.ContainsFunc(users, func(u control.User) bool { return u.Name == name }), err
	})
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
		s.everywhere(ctx, "API key", func(c *control.Client) (bool, error) {
			keys, err := c.Keys(ctx)
			return slices.ContainsFunc(keys, func(k control.Key) bool { return k.ID == key.ID }), err
		})
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
