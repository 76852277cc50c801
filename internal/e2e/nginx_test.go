package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// nginx starts nginx with the project's own example, its addresses replaced, and returns its address.
func nginx(t *testing.T, servers []*testkit.Server) string {
	t.Helper()
	dir := t.TempDir()
	front := fmt.Sprintf("127.0.0.1:%d", testkit.Port(t, "127.0.0.1"))
	example, err := os.ReadFile(filepath.Join(testkit.Root(t), "packaging/nginx/callbox.conf"))
	if err != nil {
		t.Fatal(err)
	}
	site := strings.Replace(string(example), "listen 8080;", "listen "+front+";", 1)
	for i := range nodes {
		site = strings.Replace(site, fmt.Sprintf("server 127.0.0.1:808%d;", i+1), "server "+servers[i%len(servers)].Addr()+";", 1)
	}
	if regexp.MustCompile(`(?m)^\s*(listen|server)\s[^;]*:?808\d;`).MatchString(site) && !strings.Contains(front, ":808") {
		t.Fatalf("an address of the example was not replaced:\n%s", site)
	}
	conf := fmt.Sprintf("daemon off;\nmaster_process off;\npid %[1]s/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\nclient_body_temp_path %[1]s/body;\nproxy_temp_path %[1]s/proxy;\nfastcgi_temp_path %[1]s/f;\nuwsgi_temp_path %[1]s/u;\nscgi_temp_path %[1]s/s;\n%[2]s\n}\n", dir, site)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.Start(t, "nginx", exec.Command(testkit.Tool(t, "nginx"), "-p", dir, "-c", path))
	testkit.Eventually(t, 10*time.Second, "nginx answers", func() error {
		response, err := http.Get("http://" + front + "/healthz")
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", response.Status)
		}
		return nil
	})
	http.DefaultClient.CloseIdleConnections()
	return "http://" + front
}

func TestSessionThroughNginx(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Args: []string{"--trusted-proxy", "127.0.0.1/32"}})
	front := nginx(t, []*testkit.Server{s})
	s.AddUser("ada", password)
	cookie := logInAt(t, s.Client(), front, "ada", password)
	header := http.Header{"Cookie": {cookie}, "Origin": {front}}
	ada := connect(t, "ada", entrance{urls: []string{front}, client: s.Client(), header: header})
	ada.join("through nginx")
	ada.send(map[string]any{"type": "join", "room": strings.Repeat("x", 100), "id": "long"})
	ada.await(5*time.Second, "an error", func(m message) bool { return m.ID == "long" && m.Code == "too-long" })
}

// guesses logs in with wrong passwords, each for another name, and returns how many were tried before the throttle said stop; -1 is never.
func guesses(t *testing.T, s *testkit.Server, most int, address func(i int) string) int {
	t.Helper()
	client := s.Client()
	for i := range most {
		body, _ := json.Marshal(map[string]string{"username": fmt.Sprintf("nobody%d", i), "password": "guess guess"})
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL("/api/v1/login"), bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Forwarded-For", address(i))
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusTooManyRequests {
			return i
		}
	}
	return -1
}

func TestForwardedForIsBelievedOnlyFromATrustedProxy(t *testing.T) {
	many := func(i int) string { return fmt.Sprintf("203.0.%d.7", i) }
	stranger := testkit.Serve(t, testkit.Options{Plain: true})
	if n := guesses(t, stranger, 60, many); n < 0 {
		t.Error("a guesser who is no proxy has as many addresses as it names")
	}
	trusting := testkit.Serve(t, testkit.Options{Plain: true, Args: []string{"--trusted-proxy", "127.0.0.1/32"}})
	if n := guesses(t, trusting, 30, many); n >= 0 {
		t.Errorf("people behind a trusted proxy share one throttle: stopped after %d", n)
	}
	if n := guesses(t, trusting, 60, func(int) string { return "203.0.113.7" }); n < 0 {
		t.Error("one address behind a trusted proxy guesses without end")
	}
}
