package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Options says how callbox is started. The zero value is a server on 127.0.0.1 with a new data directory.
type Options struct {
	Name      string   // in logs and messages of the tests; "callbox" when empty
	Args      []string // further arguments of callbox serve
	Env       []string // further environment, as NAME=value
	Host      string   // address to listen on; 127.0.0.1 when empty
	Port      int      // 0: a free one
	Data      string   // data directory; a new one when empty
	LogLevel  string   // "debug" when empty
	Doctor    string   // --doctor-every; never when empty
	Plain     bool     // never with the race detector
	Discover  bool     // looks for its public address and asks the router, as it does by default
	Namespace *Namespace
}

// Server is a callbox process.
type Server struct {
	*Process
	Host string
	Port int
	Data string

	t       testing.TB
	options Options
	binary  string
	earlier string // what processes before the last restart have printed
}

// Serve starts callbox and returns when it is ready. At the end of the test it is asked to stop, and the test fails when that does not end with status 0.
func Serve(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Name == "" {
		o.Name = "callbox"
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.Port == 0 {
		o.Port = Port(t, "127.0.0.1")
	}
	if o.LogLevel == "" {
		o.LogLevel = "debug"
	}
	if o.Data == "" {
		o.Data = filepath.Join(t.TempDir(), "data")
	}
	s := &Server{Host: o.Host, Port: o.Port, Data: o.Data, t: t, options: o, binary: Binary(t)}
	if o.Plain {
		s.binary = PlainBinary(t)
	}
	s.start()
	t.Cleanup(func() {
		if !s.Ended() {
			s.Stop()
		}
	})
	return s
}

func (s *Server) start() {
	s.t.Helper()
	arguments := append([]string{"serve", "--data", s.Data, "--listen", s.Addr(), "--log-format", "json", "--log-level", s.options.LogLevel}, s.options.Args...)
	if !slices.Contains(s.options.Args, "--metrics-listen") {
		arguments = append(arguments, "--metrics-listen", "127.0.0.1:0")
	}
	if !s.options.Discover && s.Host != "127.0.0.1" && s.Host != "::1" {
		arguments = append(arguments, "--stun-server", "none", "--map-port", "off")
	}
	if s.options.Doctor == "" {
		s.options.Doctor = "0s" // what it allocates and opens would be counted with the test's own
	}
	arguments = append(arguments, "--doctor-every", s.options.Doctor)
	cmd := exec.Command(s.binary, arguments...)
	if s.options.Namespace != nil {
		cmd = s.options.Namespace.Command(s.binary, arguments...)
	}
	cmd.Env = append(cmd.Environ(), s.options.Env...)
	s.Process = Start(s.t, s.options.Name, cmd)
	s.Ready(30 * time.Second)
}

// Addr returns host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, fmt.Sprint(s.Port)) }

// URL returns the server's plain HTTP address with a path.
func (s *Server) URL(path string) string { return "http://" + s.Addr() + path }

// SecureURL returns the server's https: address with a path.
func (s *Server) SecureURL(path string) string { return "https://" + s.Addr() + path }

// MetricsURL returns the address of --metrics-listen with a path.
func (s *Server) MetricsURL(path string) string {
	s.t.Helper()
	control := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.Data, "control.sock"))
	}}
	response, err := (&http.Client{Transport: control, Timeout: 20 * time.Second}).Get("http://control/health")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var health struct{ Metrics string }
	if err := json.NewDecoder(response.Body).Decode(&health); err != nil || health.Metrics == "" {
		s.t.Fatalf("%s has no metrics: %v", s.Name, err)
	}
	return "http://" + health.Metrics + path
}

// Ready waits until the server says that it is.
func (s *Server) Ready(within time.Duration) {
	s.t.Helper()
	client := s.Client()
	Eventually(s.t, within, s.Name+" is ready", func() error {
		if s.Ended() {
			s.t.Fatalf("%s has ended: %v\n%s", s.Name, s.err, tail(s.Process.Output(), 4000))
		}
		response, err := client.Get(s.URL("/readyz"))
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// Stop asks the server to stop and fails the test when it does not, or not with status 0. (With the race detector a data race is another status.)
func (s *Server) Stop() {
	s.t.Helper()
	s.Terminate()
	if code := s.Wait(40 * time.Second); code != 0 {
		s.t.Errorf("%s ended with status %d", s.Name, code)
	}
}

// Restart starts the server again on its port and data after Stop or Kill.
func (s *Server) Restart() {
	s.t.Helper()
	s.earlier += s.Process.Output()
	s.start()
}

// Options returns how the server is started; a change counts from the next Restart.
func (s *Server) Options() *Options { return &s.options }

// Output returns everything the server has printed, before restarts too.
func (s *Server) Output() string { return s.earlier + s.Process.Output() }

// Client returns an HTTP client that does not follow redirects, keeps cookies and no connection, and speaks from the server's own host.
func (s *Server) Client() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if s.options.Namespace != nil {
		transport.DialContext = s.options.Namespace.Dial
	}
	return &http.Client{
		Transport: transport, Jar: jar, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// CLI runs a subcommand on the server's data directory and in its environment, and returns both outputs and the exit status.
func (s *Server) CLI(stdin string, arguments ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	return runCLI(s.t, s.options.Env, stdin, append(arguments, "--data", s.Data)...)
}

// CLI runs callbox to its end.
func CLI(t testing.TB, stdin string, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runCLI(t, nil, stdin, arguments...)
}

func runCLI(t testing.TB, env []string, stdin string, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), arguments...)
	cmd.Env = append(cmd.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("callbox %s: %v", strings.Join(arguments, " "), err)
	}
	return out.String(), diagnostics.String(), cmd.ProcessState.ExitCode()
}

// MustCLI is CLI that fails the test when the status is not 0, and returns the standard output.
func (s *Server) MustCLI(stdin string, arguments ...string) string {
	s.t.Helper()
	stdout, stderr, code := s.CLI(stdin, arguments...)
	if code != 0 {
		s.t.Fatalf("callbox %s: status %d\n%s%s", strings.Join(arguments, " "), code, stdout, stderr)
	}
	return stdout
}

// AddUser makes a user through the command line.
func (s *Server) AddUser(name, password string) {
	s.t.Helper()
	s.MustCLI(password+"\n", "user", "add", name, "--password-stdin")
}

// LogIn returns a client that holds the user's session.
func (s *Server) LogIn(name, password string) *http.Client {
	s.t.Helper()
	client := s.Client()
	body, _ := json.Marshal(map[string]string{"username": name, "password": password})
	response, err := client.Post(s.URL("/api/v1/login"), "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(response.Body)
		s.t.Fatalf("log in as %s: %s: %s", name, response.Status, text)
	}
	return client
}

// SetupLink returns the path and query of the one-time set-up link that the server printed.
func (s *Server) SetupLink() string {
	s.t.Helper()
	found := s.Says(10*time.Second, `https?://[^\s"]+(/setup[^\s"\\]*)`)
	link, err := url.Parse(found[1])
	if err != nil {
		s.t.Fatal(err)
	}
	return link.String()
}

// Credential is what callbox credential --json prints.
type Credential struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Credential issues a TURN credential on the command line.
func (s *Server) Credential(user string) Credential {
	s.t.Helper()
	out := s.MustCLI("", "credential", "--user", user, "--json")
	var c Credential
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.Username == "" || c.Password == "" {
		s.t.Fatalf("callbox credential --json printed %q (%v)", out, err)
	}
	return c
}
