package app

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"callbox/internal/config"
)

func TestFirstRunMakesTheAdministratorOnce(t *testing.T) {
	r := serve(t, nil)
	link := "/setup?token=" + r.setup
	c := r.browser()
	if a := r.get(c, link); a.Status != http.StatusOK || !strings.Contains(a.Body, r.setup) {
		t.Fatalf("set-up page: %d", a.Status)
	}
	if a := r.get(c, "/setup?token=guess"); a.Status != http.StatusForbidden {
		t.Errorf("guessed token: %d", a.Status)
	}
	form := func(name, password, again string) answer {
		return r.form(c, "/setup", "token", r.setup, "username", name, "password", password, "again", again)
	}
	if a := form("ada", testPassword, "different"); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "differ") {
		t.Errorf("two passwords: %d", a.Status)
	}
	if a := form("ada lovelace", testPassword, testPassword); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "name") {
		t.Errorf("bad name: %d", a.Status)
	}
	if a := form("ada", testPassword, testPassword); a.Status != http.StatusSeeOther || a.Header.Get("Location") != "/" {
		t.Fatalf("set-up: %d %s", a.Status, a.Body)
	}
	if a := r.get(c, "/"); a.Status != http.StatusOK || !strings.Contains(a.Body, "administrator") {
		t.Errorf("not logged in as an administrator: %d", a.Status)
	}
	if a := form("eve", testPassword, testPassword); a.Status != http.StatusForbidden {
		t.Errorf("used link made another user: %d", a.Status)
	}
	if a := r.get(r.browser(), link, "Accept", "text/html"); a.Status != http.StatusForbidden || !strings.Contains(a.Body, "This server is set up") {
		t.Errorf("used link: %d %s", a.Status, a.Body)
	}
}

func TestCallPageIsPrivateAndCarriesServers(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	c := r.browser()
	a := r.get(c, "/call/tea%20time?x=1")
	if a.Status != http.StatusSeeOther || a.Header.Get("Location") != "/login?next=%2Fcall%2Ftea%2520time%3Fx%3D1" {
		t.Fatalf("stranger: %d to %q", a.Status, a.Header.Get("Location"))
	}
	a = r.form(c, "/login", "username", "ada", "password", testPassword, "next", "/call/tea%20time?x=1")
	if a.Status != http.StatusSeeOther || a.Header.Get("Location") != "/call/tea%20time?x=1" {
		t.Fatalf("login: %d to %q", a.Status, a.Header.Get("Location"))
	}
	cookie := a.Header.Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "callbox_session=") || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") || strings.Contains(cookie, "Secure") {
		t.Errorf("cookie: %s", cookie)
	}
	a = r.get(c, "/call/tea%20time")
	if a.Status != http.StatusOK {
		t.Fatalf("call page: %d", a.Status)
	}
	for _, want := range []string{`"room":"tea time"`, `"user":"ada"`, "turn:127.0.0.1:", "credential", "expiresAt"} {
		if !strings.Contains(a.Body, want) {
			t.Errorf("call page has no %s", want)
		}
	}
	if csp := a.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy: %s", csp)
	}
	for _, bad := range []string{"/call/@x", "/call/" + strings.Repeat("r", 65), "/call/%00"} {
		if a := r.get(c, bad); a.Status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, a.Status)
		}
	}
}

// Who has opened the call page at localhost sends a link that leads others here, not to their own machines.
func TestCallPageCarriesALinkForOthers(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	c := r.logIn("ada")
	if a := r.get(c, "/call/tea%20time"); !strings.Contains(a.Body, `"link":"`+r.linkBases()[0]+`/call/tea%20time"`) {
		t.Errorf("from this machine: %s", a.Body)
	}
	u, _ := url.Parse(r.url("/"))
	cookie := c.Jar.Cookies(u)[0].String()
	if a := r.get(r.browser(), "/call/tea", "Host", "call.example:8080", "Cookie", cookie); !strings.Contains(a.Body, `"link":"http://call.example:8080/call/tea"`) {
		t.Errorf("by a name: %s", a.Body)
	}
}

func TestRefusedTokenSaysWhy(t *testing.T) {
	r := serve(t, nil)
	unsigned := "eyJhbGciOiJub25lIn0." + strings.Split(r.mint("tea", "zoe", time.Hour), ".")[1] + "."
	for token, want := range map[string]string{
		r.mint("tea", "zoe", -time.Hour): "it has expired",
		unsigned:                         "not signed with HS256",
		"nonsense":                       "not a signed JWT",
		"eyJhbGciOiJIUzI1NiIsImtpZCI6Im5vbmUifQ.e30.c2ln": "kid names no API key",
	} {
		a := r.get(r.browser(), "/api/v1/ice-servers", "Authorization", "Bearer "+token)
		if a.Status != http.StatusUnauthorized || a.code() != "bad-token" || !strings.Contains(a.Body, want) {
			t.Errorf("want %q: %d %s", want, a.Status, a.Body)
		}
	}
}

func TestGettingLogoutEndsNoSession(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	c := r.logIn("ada")
	if a := r.get(c, "/logout"); a.Status != http.StatusSeeOther || a.Header.Get("Location") != "/" {
		t.Errorf("%d to %q", a.Status, a.Header.Get("Location"))
	}
	if a := r.get(c, "/"); a.Status != http.StatusOK {
		t.Errorf("logged out: %d", a.Status)
	}
}

func TestCookieIsSecureOverTLS(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	a := r.do(r.browser(), http.MethodPost, "https://"+r.Addr().String()+"/api/v1/login", `{"username":"ada","password":"`+testPassword+`"}`, "Content-Type", "application/json")
	if a.Status != http.StatusNoContent || !strings.Contains(a.Header.Get("Set-Cookie"), "Secure") {
		t.Errorf("%d %q", a.Status, a.Header.Get("Set-Cookie"))
	}
}

func TestICEServersNeedACallerAndHonourItsRoom(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	if a := r.get(r.browser(), "/api/v1/ice-servers"); a.Status != http.StatusUnauthorized || a.code() != "unauthorized" || strings.Contains(a.Body, "iceServers") {
		t.Errorf("stranger: %d %s", a.Status, a.Body)
	}
	var got struct {
		ICEServers []struct {
			URLs                 []string
			Username, Credential string
		} `json:"iceServers"`
		TTLSeconds int       `json:"ttlSeconds"`
		ExpiresAt  time.Time `json:"expiresAt"`
	}
	u, _ := url.Parse(r.url("/"))
	cookie := r.logIn("ada").Jar.Cookies(u)[0].String() // the jar keeps it for another host
	a := r.get(r.browser(), "/api/v1/ice-servers", "Host", "call.example:8080", "Cookie", cookie)
	if err := json.Unmarshal([]byte(a.Body), &got); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d %s: %v", a.Status, a.Body, err)
	}
	if left := time.Until(got.ExpiresAt); got.TTLSeconds != 3600 || left > time.Hour || left < 59*time.Minute {
		t.Errorf("ttl %d, expires in %v", got.TTLSeconds, left)
	}
	if len(got.ICEServers) != 2 || !strings.HasPrefix(got.ICEServers[0].URLs[0], "stun:call.example:") || got.ICEServers[1].Credential == "" {
		t.Errorf("got %+v", got.ICEServers)
	}
	if strings.Contains(got.ICEServers[1].Username, "ada") {
		t.Error("the TURN user name tells who it is")
	}
	// What it says opens the relay.
	if _, _, err := r.turnKeys(got.ICEServers[1].Username, "callbox", true); err != nil {
		t.Errorf("the relay refuses the credential: %v", err)
	}

	token := r.mint("tea", "guest", time.Hour)
	for query, want := range map[string]int{"": 200, "?room=tea": 200, "?room=other": 403} {
		if a := r.get(r.browser(), "/api/v1/ice-servers"+query, "Authorization", "Bearer "+token); a.Status != want {
			t.Errorf("token with %q: %d %s", query, a.Status, a.Body)
		}
	}
	for _, bad := range []string{"Bearer " + token + "x", "Bearer ", "Basic YTpi"} {
		if a := r.get(r.logIn("ada"), "/api/v1/ice-servers", "Authorization", bad); a.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d", bad, a.Status)
		}
	}
	short := r.get(r.browser(), "/api/v1/ice-servers", "Authorization", "Bearer "+r.mint("tea", "guest", time.Minute))
	if err := json.Unmarshal([]byte(short.Body), &got); err != nil || got.TTLSeconds > 60 {
		t.Errorf("the credential outlives its token: %s", short.Body)
	}
}

func TestLoginAPIRefusesAndThrottles(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	c := r.browser()
	for _, tc := range []struct {
		body, kind string
		status     int
		code       string
	}{
		{`{"username":"ada","password":"wrong password"}`, "application/json", 401, "bad-credentials"},
		{`{"username":"nobody","password":"wrong password"}`, "application/json", 401, "bad-credentials"},
		{`{"username":"ada"`, "application/json", 400, "bad-json"},
		{`{"username":"ada","pass":"x"}`, "application/json", 400, "bad-json"},
		{`{} {}`, "application/json", 400, "bad-json"},
		{`username=ada`, "application/x-www-form-urlencoded", 415, "bad-type"},
		{`{"username":"` + strings.Repeat("a", maxBody) + `"}`, "application/json", 413, "too-long"},
	} {
		a := r.do(c, http.MethodPost, "/api/v1/login", tc.body, "Content-Type", tc.kind)
		if a.Status != tc.status || a.code() != tc.code {
			t.Errorf("%.60s: %d %s", tc.body, a.Status, a.Body)
		}
	}
	if a := r.api(c, `{"username":"ada","password":"`+testPassword+`"}`); a.Status != http.StatusNoContent || len(a.Header["Set-Cookie"]) != 1 {
		t.Errorf("right password: %d", a.Status)
	}
	for range 30 {
		a := r.api(c, `{"username":"ada","password":"wrong password"}`)
		if a.Status == http.StatusTooManyRequests {
			if a.Header.Get("Retry-After") == "" || a.code() != "too-many-attempts" {
				t.Errorf("throttled without saying for how long: %v %s", a.Header, a.Body)
			}
			return
		}
	}
	t.Error("30 wrong passwords in a row are all tried")
}

func TestFormsOfOtherOriginsAreRefused(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	c := r.logIn("ada")
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		if a := r.do(c, http.MethodPost, "/logout", "", header...); a.Status != http.StatusForbidden {
			t.Errorf("%v: %d", header, a.Status)
		}
	}
	if a := r.get(c, "/"); a.Status != http.StatusOK {
		t.Errorf("logged out by a stranger: %d", a.Status)
	}
}

func TestLogoutEndsTheSessionForGood(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	c := r.logIn("ada")
	u, _ := url.Parse(r.url("/"))
	stolen := c.Jar.Cookies(u)[0]
	if a := r.form(c, "/logout"); a.Status != http.StatusSeeOther {
		t.Fatalf("logout: %d", a.Status)
	}
	if a := r.get(r.browser(), "/", "Cookie", stolen.String()); a.Status != http.StatusSeeOther {
		t.Errorf("the old cookie still opens the door: %d", a.Status)
	}
}

func TestPlainHTTPFromElsewhereGoesToHTTPS(t *testing.T) {
	r := serve(t, func(c *config.Config) { c.TrustedProxy = []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")} })
	h := r.web.handler()
	ask := func(method, remote, path string, header ...string) *http.Response {
		return record(h, method, remote, path, header...)
	}
	resp := ask(http.MethodGet, "192.168.1.9:5", "/call/tea?x=1")
	if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusTemporaryRedirect || got != "https://192.168.1.7:8080/call/tea?x=1" {
		t.Errorf("%d to %q", resp.StatusCode, got)
	}
	if resp := ask(http.MethodPost, "192.168.1.9:5", "/login"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a password in the clear: %d", resp.StatusCode)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if resp := ask(http.MethodGet, "192.168.1.9:5", path); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if resp := ask(http.MethodGet, "127.0.0.9:5", "/login", "X-Forwarded-For", "192.168.1.9"); resp.StatusCode != http.StatusOK {
		t.Errorf("through a trusted proxy: %d", resp.StatusCode)
	}
	if resp := ask(http.MethodGet, "127.0.0.1:5", "/login"); resp.StatusCode != http.StatusOK {
		t.Errorf("from this machine: %d", resp.StatusCode)
	}
}

func TestMetricsAndDetailsAreForAdministrators(t *testing.T) {
	r := serve(t, nil)
	r.addUser("root", true)
	r.addUser("ada", false)
	if a := r.get(r.browser(), "/metrics"); a.Status != http.StatusForbidden {
		t.Errorf("a stranger, who may have come through a proxy on this machine: %d", a.Status)
	}
	if a := r.get(r.logIn("ada"), "/metrics"); a.Status != http.StatusForbidden {
		t.Errorf("a user: %d", a.Status)
	}
	if a := r.get(r.logIn("root"), "/metrics"); a.Status != http.StatusOK || !strings.Contains(a.Body, "callbox_bus_link_up 1") || !strings.Contains(a.Body, "callbox_build_info") {
		t.Errorf("an administrator: %d", a.Status)
	}
	if a := r.get(r.logIn("ada"), "/readyz"); a.Status != http.StatusOK || a.Body != `{"status":"ready","bus":"ok"}`+"\n" {
		t.Errorf("readiness for a user: %d %s", a.Status, a.Body)
	}
	if a := r.get(r.logIn("root"), "/readyz"); a.Status != http.StatusOK || !strings.Contains(a.Body, `"nodes":1`) {
		t.Errorf("readiness for an administrator: %d %s", a.Status, a.Body)
	}
	if a := r.get(r.logIn("ada"), "/api/v1/relay"); a.Status != http.StatusForbidden {
		t.Errorf("allocations for a user: %d", a.Status)
	}
	if a := r.get(r.logIn("root"), "/api/v1/relay"); a.Status != http.StatusOK || !strings.Contains(a.Body, `"allocations":[]`) {
		t.Errorf("allocations for an administrator: %d %s", a.Status, a.Body)
	}
}

func TestMetricsListenerAnswersNothingElse(t *testing.T) {
	r := serve(t, func(c *config.Config) { c.MetricsListen.Addr = netip.MustParseAddrPort("127.0.0.1:0") })
	base := "http://" + r.metrics.Addr().String()
	if a := r.get(r.browser(), base+"/metrics"); a.Status != http.StatusOK || !strings.Contains(a.Body, "callbox_build_info") {
		t.Errorf("metrics: %d", a.Status)
	}
	if a := r.get(r.browser(), base+"/readyz"); a.Status != http.StatusOK || !strings.Contains(a.Body, `"nodes":1`) {
		t.Errorf("readiness: %d %s", a.Status, a.Body)
	}
	if a := r.get(r.browser(), base+"/login"); a.Status != http.StatusNotFound {
		t.Errorf("login: %d", a.Status)
	}
	if a := r.get(r.browser(), base+"/metrics", "Host", "rebound.example:9464"); a.Status != http.StatusForbidden {
		t.Errorf("from a foreign page: %d", a.Status)
	}
}

func TestNodesOfOneMachineFindAPortForMetricsEach(t *testing.T) {
	auto := func(c *config.Config) { c.MetricsListen.Auto = true }
	one, two := serve(t, auto), serve(t, auto)
	if one.metrics == nil || two.metrics == nil {
		t.Fatal("no port in the whole range")
	}
	for _, r := range []*running{one, two} {
		addr := boundAddr(r.metrics, netip.AddrPort{})
		if !addr.Addr().IsLoopback() || addr.Port() < metricsPort || addr.Port() >= metricsPort+metricsPorts {
			t.Errorf("metrics at %v", addr)
		}
	}
	taken := onLoopback(t)
	taken.MetricsListen.Addr = boundAddr(one.metrics, netip.AddrPort{})
	if _, err := New(t.Context(), taken, Options{}); err == nil || !strings.Contains(err.Error(), "--metrics-listen") {
		t.Errorf("an address that was asked for is taken: %v", err)
	}
	taken.MetricsListen = config.MetricsAddr{Auto: true}
	taken.Listen = netip.AddrPortFrom(taken.Listen.Addr(), metricsPort)
	if !portNamed(taken, metricsPort) || portNamed(taken, metricsPort+1) {
		t.Error("the port that --listen names is not kept for it")
	}
}

func TestAllowedOriginReadsTheAPIWithoutCookies(t *testing.T) {
	r := serve(t, func(c *config.Config) { c.Origins = []config.Origin{"https://app.example"} })
	c := r.browser()
	const app, evil = "https://app.example", "https://evil.example"
	a := r.do(c, http.MethodOptions, "/api/v1/ice-servers", "", "Origin", app, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization")
	if a.Status != http.StatusNoContent || a.Header.Get("Access-Control-Allow-Origin") != app || !strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight: %d %v", a.Status, a.Header)
	}
	for _, path := range []string{"/static/callbox.js", "/static/callbox/client.js", "/api/v1/ice-servers"} {
		if got := r.get(c, path, "Origin", app).Header; got.Get("Access-Control-Allow-Origin") != app || got.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v", path, got)
		}
		if got := r.get(c, path, "Origin", evil).Header; got.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s for a stranger: %v", path, got)
		}
	}
}

func TestUnknownPathsAndMethodsAreNamed(t *testing.T) {
	r := serve(t, nil)
	c := r.browser()
	if a := r.get(c, "/api/v1/nothing"); a.Status != http.StatusNotFound || a.code() != "not-found" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := r.get(c, "/nothing", "Accept", "text/html"); a.Status != http.StatusNotFound || !strings.Contains(a.Body, "<html") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := r.get(c, "/static/nothing.js"); a.Status != http.StatusNotFound || a.code() != "not-found" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := r.get(c, "/static/nothing.js", "Accept", "text/html"); a.Status != http.StatusNotFound || !strings.Contains(a.Body, "<html") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := r.do(c, http.MethodPost, "/static/callbox.js", "", "Sec-Fetch-Site", "same-origin"); a.Status != http.StatusMethodNotAllowed || a.code() != "bad-method" || a.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("%d %s %v", a.Status, a.Body, a.Header)
	}
	if a := r.do(c, http.MethodPut, "/login", ""); a.Status != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "GET, POST" {
		t.Errorf("%d %v", a.Status, a.Header)
	}
}

func TestFaultInOneRequestEndsThatRequestAlone(t *testing.T) {
	var log lockedBuffer
	h := withRecovery(slog.New(slog.NewTextHandler(&log, nil)), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("broken") }))
	if resp := record(h, http.MethodGet, "127.0.0.1:1", "/x"); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("answered %d", resp.StatusCode)
	}
	if !strings.Contains(log.String(), "broken") || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("logged %q", log.String())
	}
}
