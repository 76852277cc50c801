package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// userNames are the names that callbox user list prints, by first column.
func userNames(out string) map[string]bool {
	names := map[string]bool{}
	for line := range strings.SplitSeq(out, "\n") {
		if fields := strings.Fields(line); len(fields) > 0 {
			names[fields[0]] = true
		}
	}
	return names
}

func TestUsersWithoutAServer(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	run := func(stdin string, want int, arguments ...string) string {
		t.Helper()
		out, diagnostics, code := testkit.CLI(t, stdin, append(arguments, "--data", data)...)
		if code != want {
			t.Fatalf("callbox %v: status %d, want %d\n%s%s", arguments, code, want, out, diagnostics)
		}
		return out + diagnostics
	}
	run(password+"\n", 0, "user", "add", "ada", "--password-stdin")
	run(password+"\n", 0, "user", "add", "grace", "--password-stdin")
	if out := run(password+"\n", 1, "user", "add", "ada", "--password-stdin"); !strings.Contains(out, "ada") {
		t.Errorf("adding a user twice: %q names nobody", out)
	}
	run("short\n", 1, "user", "add", "alan", "--password-stdin")
	run(password+"\n", 1, "user", "add", "no/slash", "--password-stdin")
	run("another good password\n", 0, "user", "passwd", "ada", "--password-stdin")
	run("", 0, "user", "remove", "grace")
	run("", 1, "user", "remove", "grace")
	names := userNames(run("", 0, "user", "list"))
	if !names["ada"] || names["grace"] || names["alan"] {
		t.Errorf("listed: %v", names)
	}
	if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v, %v", info, err)
	}
	entries, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(entry.Name(), ".crt") {
			continue
		}
		if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", entry.Name(), info.Mode())
		}
	}

	s := testkit.Serve(t, testkit.Options{Data: data})
	s.LogIn("ada", "another good password")
}

func TestUsersThroughARunningServer(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	client := s.LogIn("ada", password)
	own := http.Header{"Origin": {s.URL("")}}
	ada := connect(t, "ada", entrance{urls: []string{s.URL("")}, client: client, header: own})
	if names := userNames(s.MustCLI("", "user", "list")); !names["ada"] {
		t.Errorf("listed: %v", names)
	}
	socket, err := os.Stat(filepath.Join(s.Data, "control.sock"))
	if err != nil || socket.Mode().Perm() != 0o600 {
		t.Errorf("control socket: %v, %v", socket, err)
	}

	// Who is removed is out at once: WebSocket, cookie, password.
	s.MustCLI("", "user", "remove", "ada")
	select {
	case <-ada.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the WebSocket of a removed user lives on")
	}
	if !strings.Contains(fmt.Sprint(ada.end), "4001") {
		t.Errorf("closed with %v, want 4001", ada.end)
	}
	if code, _, body := iceServers(t, s, client, "", ""); code != http.StatusUnauthorized {
		t.Errorf("ice-servers for a removed user: %d %s", code, body)
	}
	if response, err := s.Client().Post(s.URL("/api/v1/login"), "application/json", strings.NewReader(`{"username":"ada","password":"`+password+`"}`)); err != nil {
		t.Fatal(err)
	} else {
		_ = response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("log in as a removed user: %s", response.Status)
		}
	}

	// A new password ends the sessions that the old one opened.
	s.AddUser("grace", password)
	grace := s.LogIn("grace", password)
	s.MustCLI("another good password\n", "user", "passwd", "grace", "--password-stdin")
	if code, _, body := iceServers(t, s, grace, "", ""); code != http.StatusUnauthorized {
		t.Errorf("ice-servers after a change of password: %d %s", code, body)
	}
	s.LogIn("grace", "another good password")
}

func TestUsersAndSessionsSurviveARestart(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	kept, ended := s.LogIn("ada", password), s.LogIn("ada", password)
	response, err := ended.Post(s.URL("/logout"), "application/x-www-form-urlencoded", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	cookies := response.Request.Cookies()
	_ = response.Body.Close()
	if len(cookies) == 0 {
		t.Fatal("logged out without a cookie")
	}
	s.Stop()
	s.Restart()
	if code, _, body := iceServers(t, s, kept, "", ""); code != http.StatusOK {
		t.Errorf("a session after a restart: %d %s", code, body)
	}
	// Somebody who kept a copy of the cookie does not get in with it after logging out, nor after a restart.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL("/api/v1/ice-servers"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, cookie := range cookies {
		request.AddCookie(cookie)
	}
	again, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Body.Close()
	if again.StatusCode != http.StatusUnauthorized {
		t.Errorf("a logged-out cookie after a restart: %s", again.Status)
	}
}

func TestDamagedUsersFileIsNamedAndKept(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	s.Stop()
	path := filepath.Join(s.Data, "users.json")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := content[:len(content)-len(content)/3]
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arguments := range [][]string{{"serve", "--listen", s.Addr()}, {"user", "list"}, {"user", "remove", "ada"}} {
		_, diagnostics, code := testkit.CLI(t, "", append(arguments, "--data", s.Data)...)
		if code == 0 || !strings.Contains(diagnostics, "users.json") {
			t.Errorf("callbox %v on a damaged users file: status %d, %q", arguments, code, diagnostics)
		}
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(damaged) {
		t.Errorf("the damaged file was changed (%v)", err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	s.LogIn("ada", password)
}

func TestConfigurationFaultsAreReportedAtOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "callbox.yaml")
	if err := os.WriteFile(file, []byte("listen: nowhere\nturn-ttl: forever\nno-such-setting: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, diagnostics, code := testkit.CLI(t, "", "serve", "--config", file, "--public-ip", "not an address", "--relay-ports", "9-1", "--data", filepath.Join(dir, "data"))
	if code != 2 {
		t.Errorf("status %d, want 2", code)
	}
	for _, key := range []string{"listen", "turn-ttl", "no-such-setting", "public-ip", "relay-ports"} {
		if !strings.Contains(diagnostics, key) {
			t.Errorf("%s is not named in:\n%s", key, diagnostics)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("the data directory was made in spite of the faults")
	}
	if _, _, code := testkit.CLI(t, "", "serve", "--no-such-flag"); code != 2 {
		t.Errorf("an unknown flag: status %d, want 2", code)
	}
}

func TestFlagBeatsEnvironmentBeatsFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "callbox.yaml")
	if err := os.WriteFile(file, []byte("realm: from-file\nturn-ttl: 11m\nnode-name: from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testkit.Binary(t), "config", "--config", file, "--realm", "from-flag")
	cmd.Env = append(cmd.Environ(), "CALLBOX_REALM=from-environment", "CALLBOX_NODE_NAME=from-environment")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, line := range []string{"realm: from-flag", "node-name: from-environment", "turn-ttl: 11m"} {
		if !strings.Contains(string(out), line) {
			t.Errorf("no %q in:\n%s", line, out)
		}
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	_, diagnostics, code := testkit.CLI(t, "", "serve", "--listen", s.Addr(), "--data", filepath.Join(t.TempDir(), "other"))
	if code == 0 || !strings.Contains(diagnostics, fmt.Sprint(s.Port)) {
		t.Errorf("a second server on the port: status %d, %q", code, diagnostics)
	}
	_, diagnostics, code = testkit.CLI(t, "", "serve", "--listen", fmt.Sprintf("127.0.0.1:%d", testkit.Port(t, "127.0.0.1")), "--data", s.Data)
	if code == 0 || !strings.Contains(diagnostics, s.Data) {
		t.Errorf("a second server on the data directory: status %d, %q", code, diagnostics)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Args: []string{"--drain-timeout", "60s"}})
	token, _, _ := roomToken(t, s, "lobby", "guest")
	guest := connect(t, "guest", entrance{urls: []string{s.URL("")}, client: s.Client(), token: token})
	guest.join("lobby")
	hold := holdAllocation(t, s)
	defer hold()
	s.Terminate()
	testkit.Eventually(t, 10*time.Second, "readiness is off", func() error {
		response, err := s.Client().Get(s.URL("/readyz"))
		if err != nil {
			return nil // not listening any more is not ready either
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return fmt.Errorf("%s", response.Status)
		}
		return nil
	})
	if s.Ended() {
		t.Fatal("a server with a running relay did not wait")
	}
	begun := time.Now()
	s.Terminate()
	s.Wait(10 * time.Second)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the second signal took %v", took)
	}
}

func TestHealthcheckAndVersion(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	if out, diagnostics, code := s.CLI("", "healthcheck"); code != 0 {
		t.Errorf("healthcheck of a healthy server: status %d %s%s", code, out, diagnostics)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		response, err := s.Client().Get(s.URL(path))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
	s.Stop()
	if _, _, code := s.CLI("", "healthcheck"); code == 0 {
		t.Error("healthcheck of a stopped server succeeds")
	}
	out, _, code := testkit.CLI(t, "", "version")
	if code != 0 || !strings.Contains(out, "callbox") {
		t.Errorf("version: status %d, %q", code, out)
	}
}

func TestCredentialIsWhatTheRelayTakes(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	out := s.MustCLI("", "credential", "--user", "ada", "--ttl", "10m", "--json")
	var c testkit.Credential
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	var expiry int64
	if _, err := fmt.Sscanf(c.Username, "%d:", &expiry); err != nil {
		t.Fatalf("user name %q: %v", c.Username, err)
	}
	if left := time.Until(time.Unix(expiry, 0)); left < 9*time.Minute || left > 11*time.Minute {
		t.Errorf("the credential holds for %v", left)
	}
	if strings.Contains(c.Username, "ada") {
		t.Errorf("the user name on the wire tells who it is: %q", c.Username)
	}
}

func TestRemovedKeyEndsItsTokens(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	token, id, secret := roomToken(t, s, "lobby", "guest")
	guest := connect(t, "guest", entrance{urls: []string{s.URL("")}, client: s.Client(), token: token})
	guest.join("lobby")
	out := s.MustCLI("", "key", "list")
	if !strings.Contains(out, id) || strings.Contains(out, secret) {
		t.Errorf("callbox key list must name the key and not tell its secret: %q", out)
	}
	s.MustCLI("", "key", "remove", id)
	select {
	case <-guest.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the WebSocket of a token whose key was removed lives on")
	}
	if code, _, body := iceServers(t, s, s.Client(), token, "?room=lobby"); code != http.StatusUnauthorized {
		t.Errorf("a token of a removed key: %d %s", code, body)
	}
}

// Logging out ends what the session has open: its WebSocket and its relay.
func TestLogoutEndsTheSessionsRelay(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	cookie := logInAt(t, s.Client(), s.URL(""), "ada", password)
	header := http.Header{"Cookie": {cookie}, "Origin": {s.URL("")}}
	ada := connect(t, "ada", entrance{urls: []string{s.URL("")}, client: s.Client(), header: header})
	ada.mu.Lock()
	servers := ada.welcomes[0].Servers
	ada.mu.Unlock()
	var own testkit.Credential
	for _, server := range servers {
		if server.Credential != "" {
			own = testkit.Credential{Username: server.Username, Password: server.Credential}
		}
	}
	if own.Username == "" {
		t.Fatalf("the welcome holds no TURN credential: %+v", servers)
	}
	socket, err := listenLoopback()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	client, relay := allocate(t, socket, s.Addr(), own)
	defer client.Close()
	defer func() { _ = relay.Close() }()
	if n := gauge(t, s, "callbox_relay_allocations"); n < 1 {
		t.Fatalf("%v allocations", n)
	}
	post(t, s.URL("/logout"), cookie)
	select {
	case <-ada.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the WebSocket of a session that has logged out lives on")
	}
	testkit.Eventually(t, 10*time.Second, "the allocation is gone", func() error {
		if n := gauge(t, s, "callbox_relay_allocations"); n != 0 {
			return fmt.Errorf("%v allocations", n)
		}
		return nil
	})
	again, err := listenLoopback()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if allocates(t, again, s.Addr(), own) {
		t.Error("the credential of a session that has logged out still opens the relay")
	}
}
