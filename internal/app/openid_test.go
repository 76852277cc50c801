package app

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/testkit"
)

// withProvider is a server that people can log in to at a provider.
func withProvider(t *testing.T, change func(*config.Config)) (*running, *testkit.OpenIDProvider) {
	t.Helper()
	at := testkit.NewOpenIDProvider(t)
	r := serve(t, func(c *config.Config) {
		configure(t, c, at)
		if change != nil {
			change(c)
		}
	})
	eventually(t, func() bool { return r.web.openid.provider.Ready() })
	return r, at
}

func configure(t *testing.T, c *config.Config, at *testkit.OpenIDProvider) {
	t.Helper()
	c.OIDCIssuer, c.OIDCClientID = config.Issuer(at.Issuer()), at.ClientID
	c.OIDCClientSecretFile = filepath.Join(t.TempDir(), "client-secret")
	writeFile(t, c.OIDCClientSecretFile, at.ClientSecret+"\n")
}

// begin goes to the provider and returns the URL that it sends the browser back to.
func (r *running) begin(c *http.Client, next string) string {
	r.t.Helper()
	a := r.get(c, pathOpenID+"?"+url.Values{"next": {next}}.Encode())
	if a.Status != http.StatusSeeOther {
		r.t.Fatalf("to the provider: %d %s", a.Status, a.Body)
	}
	a = r.get(c, a.Header.Get("Location"))
	if a.Status != http.StatusFound {
		r.t.Fatalf("at the provider: %d %s", a.Status, a.Body)
	}
	return a.Header.Get("Location")
}

func TestPeopleLogInAtTheProvider(t *testing.T) {
	r, at := withProvider(t, nil)
	at.Register(r.url(pathOpenIDCallback))
	at.Login(map[string]any{"sub": "1", "preferred_username": "ada", "name": "Ada Lovelace"}, nil)
	r.addUser("ada", true)
	c := r.browser()
	if a := r.get(c, "/login?next=/call/tea"); a.Status != http.StatusOK || !strings.Contains(a.Body, "Log in with single sign-on") || !strings.Contains(a.Body, `href="/login/oidc?next=%2Fcall%2Ftea"`) {
		t.Errorf("login page: %d %s", a.Status, a.Body)
	}
	back := r.begin(c, "/call/tea")
	a := r.get(c, back)
	if a.Status != http.StatusSeeOther || a.Header.Get("Location") != "/call/tea" {
		t.Fatalf("back: %d %s", a.Status, a.Body)
	}
	cookies := strings.Join(a.Header.Values("Set-Cookie"), "\n")
	if !strings.Contains(cookies, cookieName+"=v1.") || !strings.Contains(cookies, flowCookie+"=;") || strings.Count(cookies, "HttpOnly") != 2 {
		t.Errorf("cookies %s", cookies)
	}
	// Somebody else than the local ada, who is an administrator.
	if a := r.get(c, "/"); a.Status != http.StatusOK || !strings.Contains(a.Body, "oidc:ada") || strings.Contains(a.Body, "administrator") {
		t.Errorf("home: %d", a.Status)
	}
	if a := r.get(c, "/call/tea"); !strings.Contains(a.Body, `"name":"Ada Lovelace"`) {
		t.Errorf("call page: %d", a.Status)
	}
	// A code is good once, and a login that was finished is over.
	if a := r.get(c, back); a.Status != http.StatusBadRequest {
		t.Errorf("the same once more: %d", a.Status)
	}

	conn, _ := r.dial(c, "", r.own())
	p := r.join(conn, "tea")
	users, err := control.NewClient(r.data).Users(t.Context())
	if err != nil || len(users) != 2 || users[1].Name != "oidc:ada" || users[1].Admin || !users[1].PasswordChanged.IsZero() {
		t.Errorf("users %+v %v", users, err)
	}
	if err := control.NewClient(r.data).RemoveUser(t.Context(), "oidc:ada"); err != nil {
		t.Fatal(err)
	}
	if code := p.awaitClose(); code != 4001 {
		t.Errorf("removed: closed with %d", code)
	}
	if a := r.get(c, "/"); a.Status != http.StatusSeeOther {
		t.Errorf("removed: home %d", a.Status)
	}
	if a := r.get(r.logIn("ada"), "/"); a.Status != http.StatusOK {
		t.Errorf("the local ada: %d", a.Status)
	}
	// Who comes again has a session that works, and can end it.
	if a := r.get(c, r.begin(c, "/")); a.Status != http.StatusSeeOther {
		t.Fatalf("again: %d", a.Status)
	}
	conn, _ = r.dial(c, "", r.own())
	p = r.join(conn, "tea")
	if a := r.form(c, "/logout"); a.Status != http.StatusSeeOther {
		t.Errorf("logout: %d", a.Status)
	}
	if code := p.awaitClose(); code != 4001 {
		t.Errorf("logged out: closed with %d", code)
	}
}

func TestStolenAndForgedLoginsLogNobodyIn(t *testing.T) {
	r, at := withProvider(t, nil)
	victim, thief := r.browser(), r.browser()
	refused := func(name string, a answer, status int, says string) {
		t.Helper()
		if a.Status != status || !strings.Contains(a.Body, says) || strings.Contains(strings.Join(a.Header.Values("Set-Cookie"), "\n"), cookieName+"=v1.") {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	// The thief's login is finished in the victim's browser, with and without one of the victim's own under way.
	stolen := r.begin(thief, "/")
	refused("another browser", r.get(victim, stolen), 400, "begun in another browser")
	r.begin(victim, "/")
	refused("another login", r.get(victim, stolen), 400, "begun in another browser")
	refused("a made-up cookie", r.get(victim, stolen, "Cookie", flowCookie+"=AAAA"), 400, "begun in another browser")
	refused("nothing", r.get(victim, pathOpenIDCallback), 400, "begun in another browser")

	back := r.begin(victim, "/")
	u, _ := url.Parse(back)
	refused("declined", r.get(victim, pathOpenIDCallback+"?"+url.Values{"state": {u.Query().Get("state")}, "error": {"access_denied<script>"}}.Encode()), 403, "has not logged you in")

	at.Change(func(c jwt.MapClaims) { c["nonce"] = "another" })
	refused("another nonce", r.get(victim, r.begin(victim, "/")), 400, "is not valid")
	at.Change(nil)
	at.Login(map[string]any{"sub": "1", "preferred_username": "ada"}, nil)
	if a := r.get(victim, r.begin(victim, "/")); a.Status != http.StatusSeeOther {
		t.Errorf("a good login: %d %s", a.Status, a.Body)
	}
	at.Login(map[string]any{"sub": "2", "preferred_username": "ADA"}, nil)
	refused("the name of another account", r.get(thief, r.begin(thief, "/")), 403, "Another account of the provider")
	at.Login(map[string]any{"sub": "3", "preferred_username": "a:b"}, nil)
	refused("no name", r.get(thief, r.begin(thief, "/")), 403, "printable ASCII")
	if a := r.get(r.browser(), pathOpenID+"?next=https://evil.example"); a.Status != http.StatusSeeOther {
		t.Errorf("next elsewhere: %d", a.Status)
	}

	// Codes that the provider does not take are slowed down.
	at.Handle("/token", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadRequest) })
	last := answer{}
	for range 30 {
		if last = r.get(thief, r.begin(thief, "/")); last.Status == http.StatusTooManyRequests {
			break
		}
	}
	if last.Status != http.StatusTooManyRequests || last.Header.Get("Retry-After") == "" {
		t.Errorf("guesses: %d", last.Status)
	}
}

func TestOnlyWhoIsAllowedLogsIn(t *testing.T) {
	r, at := withProvider(t, func(c *config.Config) {
		c.OIDCAllow = []config.OIDCRule{{Domain: "x.example"}, {Group: "staff"}}
		c.OIDCName = "Example ID"
	})
	c := r.browser()
	at.Login(map[string]any{"sub": "1", "preferred_username": "ada", "email": "ada@y.example", "email_verified": true}, nil)
	if a := r.get(c, r.begin(c, "/")); a.Status != http.StatusForbidden || !strings.Contains(a.Body, "Example ID may not be used here") {
		t.Errorf("somebody: %d %s", a.Status, a.Body)
	}
	at.Login(map[string]any{"sub": "1", "preferred_username": "ada", "email": "ada@x.example", "email_verified": true}, nil)
	if a := r.get(c, r.begin(c, "/")); a.Status != http.StatusSeeOther {
		t.Errorf("of the domain: %d", a.Status)
	}
}

func TestLocalLoginsGoOnWithoutTheProvider(t *testing.T) {
	at := testkit.NewOpenIDProvider(t)
	at.Handle("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	begun := time.Now()
	r := serve(t, func(c *config.Config) { configure(t, c, at) })
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the start waited for %v", took)
	}
	r.addUser("ada", false)
	if a := r.get(r.browser(), "/login"); !strings.Contains(a.Body, "does not work at the moment") || strings.Contains(a.Body, `id="provider"`) {
		t.Errorf("login page: %s", a.Body)
	}
	if a := r.get(r.browser(), pathOpenID); a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, "try again later") {
		t.Errorf("begun: %d", a.Status)
	}
	if a := r.form(r.browser(), "/login", "username", "ada", "password", testPassword); a.Status != http.StatusSeeOther {
		t.Errorf("local login: %d", a.Status)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestWithoutAProviderThereIsNoSuchLogin(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	for _, path := range []string{pathOpenID, pathOpenIDCallback} {
		if a := r.get(r.browser(), path); a.Status != http.StatusNotFound {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
	if a := r.get(r.browser(), "/login"); strings.Contains(a.Body, "oidc") {
		t.Error("the login page names a provider")
	}
}

func TestLoginIsBegunWhereTheProviderSendsPeopleBackTo(t *testing.T) {
	r, at := withProvider(t, func(c *config.Config) { c.PublicURL = "https://call.example" })
	at.Register("https://call.example" + pathOpenIDCallback)
	c := r.browser()
	a := r.get(c, pathOpenID+"?next=/call/tea")
	if a.Status != http.StatusSeeOther || a.Header.Get("Location") != "https://call.example/login/oidc?next=%2Fcall%2Ftea&sent=" {
		t.Fatalf("by another address: %d to %s", a.Status, a.Header.Get("Location"))
	}
	// A proxy that hides the host: no circle.
	a = r.get(c, pathOpenID+"?next=%2Fcall%2Ftea&sent=")
	if a.Status != http.StatusSeeOther || !strings.HasPrefix(a.Header.Get("Location"), at.Issuer()) {
		t.Fatalf("sent: %d to %s", a.Status, a.Header.Get("Location"))
	}
	if a := r.get(c, a.Header.Get("Location")); a.Status != http.StatusFound || !strings.HasPrefix(a.Header.Get("Location"), "https://call.example/login/oidc/callback?") {
		t.Errorf("at the provider: %d to %s", a.Status, a.Header.Get("Location"))
	}
}

func TestLoginBegunOnOneNodeEndsOnAnother(t *testing.T) {
	at := testkit.NewOpenIDProvider(t)
	nodes := cluster(t, 2, func(_ int, c *config.Config) { configure(t, c, at) })
	for _, n := range nodes {
		eventually(t, func() bool { return n.web.openid.provider.Ready() })
	}
	a, b := nodes[0], nodes[1]
	c := a.browser()
	back, err := url.Parse(a.begin(c, "/"))
	if err != nil {
		t.Fatal(err)
	}
	got := b.get(c, b.url(back.RequestURI())) // cookies do not know ports
	if got.Status != http.StatusSeeOther {
		t.Fatalf("on the other node: %d %s", got.Status, got.Body)
	}
	eventually(t, func() bool { return a.get(c, "/").Status == http.StatusOK })
	if err := control.NewClient(a.data).RemoveUser(t.Context(), "oidc:ada"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return b.get(c, "/").Status == http.StatusSeeOther })
}

func TestFaultsOfTheClientSecretAreFoundBeforeTheStart(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	short := filepath.Join(t.TempDir(), "short")
	writeFile(t, short, "short\n")
	for _, path := range []string{missing, short} {
		faults := CheckFiles(config.Config{OIDCClientSecretFile: path})
		if len(faults) != 1 || faults[0].Key != "oidc-client-secret-file" || !strings.Contains(faults[0].Remedy, "provider has issued") {
			t.Errorf("%s: %v", path, faults)
		}
	}
}
