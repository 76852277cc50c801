package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"

	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"callbox/internal/testkit"
)

func containsAny(s string, parts ...string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

func listenLoopback() (net.PacketConn, error) { return net.ListenPacket("udp4", "127.0.0.1:0") }

// logInAt logs in at an address and returns the session as a Cookie header.
func logInAt(t *testing.T, client *http.Client, base, user, password string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"username": user, "password": password})
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Post(base+"/api/v1/login", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusNoContent || len(response.Cookies()) == 0 {
		t.Fatalf("log in as %s at %s: %s", user, base, response.Status)
	}
	cookie := response.Cookies()[0]
	return cookie.Name + "=" + cookie.Value
}

func send(t *testing.T, method, url, cookie string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Cookie", cookie)
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response
}

func post(t *testing.T, url, cookie string) { t.Helper(); send(t, http.MethodPost, url, cookie) }

// iceStatus returns how a server answers the holder of a cookie who asks for iceServers.
func iceStatus(t *testing.T, base, cookie string) int {
	t.Helper()
	return send(t, http.MethodGet, base+"/api/v1/ice-servers", cookie).StatusCode
}

func mustAddrPort(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// gauge reads a figure of a server's metrics, summed over its labels; what has no series is 0.
func gauge(t *testing.T, s *testkit.Server, name string) float64 {
	t.Helper()
	response, err := s.Client().Get(s.MetricsURL("/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s", response.Status)
	}
	sum := 0.0
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || (rest[0] != ' ' && rest[0] != '{') {
			continue
		}
		fields := strings.Fields(rest)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += value
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return sum
}
