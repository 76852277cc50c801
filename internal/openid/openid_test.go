package openid

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"callbox/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const redirect = "http://localhost:8080/login/oidc/callback"

// login is a provider and this server's side of it.
type login struct {
	*Provider
	t  *testing.T
	at *testkit.OpenIDProvider
}

func start(t *testing.T, change func(*Config)) *login {
	t.Helper()
	at := testkit.NewOpenIDProvider(t)
	at.Register(redirect)
	cfg := Config{
		Issuer: at.Issuer(), ClientID: at.ClientID, ClientSecret: at.ClientSecret,
		Scopes: []string{"profile"}, UsernameClaims: []string{"preferred_username", "email"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	l := &login{Provider: New(cfg), t: t, at: at}
	l.Run(t.Context())
	if !l.Ready() {
		t.Fatal("the provider is not found")
	}
	return l
}

// visit goes to the provider as a browser does, and returns the query that it is sent back with.
func (l *login) visit(target string) url.Values {
	l.t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Get(target)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		text, _ := io.ReadAll(resp.Body)
		l.t.Fatalf("%s: %v: %s", target, err, text)
	}
	return back.Query()
}

// whole goes through a login, whatever comes of it.
func (l *login) whole() (Person, error) {
	l.t.Helper()
	target, f, err := l.Begin(redirect, "/next", time.Now())
	if err != nil {
		l.t.Fatal(err)
	}
	query := l.visit(target)
	if err := l.CheckState(f, query, time.Now()); err != nil {
		return Person{}, err
	}
	return l.Finish(l.t.Context(), f, query, time.Now)
}

func TestPersonIsWhoTheProviderSays(t *testing.T) {
	unnamed := map[string]any{"sub": "1"}
	for name, c := range map[string]struct {
		claims, userinfo map[string]any
		allow            []Rule
		want             string
		err              error
	}{
		"by name":                               {map[string]any{"sub": "1", "preferred_username": "ada", "email": "a@x.example"}, nil, nil, "ada", nil},
		"by address":                            {map[string]any{"sub": "1", "email": "a@x.example"}, nil, nil, "a@x.example", nil},
		"by an address that need not be theirs": {map[string]any{"sub": "1", "email": "a@x.example", "email_verified": false}, nil, nil, "", ErrNoName},
		"by user information":                   {unnamed, map[string]any{"preferred_username": "ada"}, nil, "ada", nil},
		"of somebody else":                      {unnamed, map[string]any{"sub": "2", "preferred_username": "ada"}, nil, "", ErrInvalid},
		"by no name":                            {unnamed, nil, nil, "", ErrNoName},
		"by no text":                            {map[string]any{"sub": "1", "preferred_username": []string{"ada"}}, nil, nil, "", ErrNoName},
		"nobody":                                {map[string]any{"sub": "", "preferred_username": "ada"}, nil, nil, "", ErrInvalid},

		"of the domain":        {map[string]any{"sub": "1", "preferred_username": "ada", "email": "a@X.example", "email_verified": true}, nil, []Rule{{Domain: "x.example"}}, "ada", nil},
		"of another domain":    {map[string]any{"sub": "1", "preferred_username": "ada", "email": "a@x.example.org", "email_verified": true}, nil, []Rule{{Domain: "x.example"}}, "", ErrNotAllowed},
		"of two domains":       {map[string]any{"sub": "1", "preferred_username": "ada", "email": "a@x.example@y.example", "email_verified": true}, nil, []Rule{{Domain: "x.example"}, {Domain: "y.example"}}, "", ErrNotAllowed},
		"unverified":           {map[string]any{"sub": "1", "preferred_username": "ada", "email": "a@x.example"}, nil, []Rule{{Domain: "x.example"}}, "", ErrNotAllowed},
		"verified elsewhere":   {map[string]any{"sub": "1", "preferred_username": "ada", "email": "a@x.example"}, map[string]any{"email": "b@z.example", "email_verified": true}, []Rule{{Domain: "x.example"}}, "", ErrNotAllowed},
		"verified without one": {map[string]any{"sub": "1", "preferred_username": "ada", "email_verified": true}, map[string]any{"email": "a@x.example"}, []Rule{{Domain: "x.example"}}, "", ErrNotAllowed},
		"of a group":           {map[string]any{"sub": "1", "preferred_username": "ada", "groups": []string{"all", "staff"}}, nil, []Rule{{Group: "staff"}}, "ada", nil},
		"of a group there":     {map[string]any{"sub": "1", "preferred_username": "ada"}, map[string]any{"groups": "staff"}, []Rule{{Domain: "x"}, {Group: "staff"}}, "ada", nil},
		"of no group":          {map[string]any{"sub": "1", "preferred_username": "ada", "groups": []string{"all"}}, nil, []Rule{{Group: "staff"}}, "", ErrNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, func(cfg *Config) { cfg.Allow = c.allow })
			l.at.Login(c.claims, c.userinfo)
			got, err := l.whole()
			if got.Username != c.want || !errors.Is(err, c.err) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if err == nil && (got.Subject != "1" || got.Issuer != l.at.Issuer()) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	foreign, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(l *login){
		"another login's":   func(l *login) { l.at.Change(func(c jwt.MapClaims) { c["nonce"] = "another" }) },
		"without a nonce":   func(l *login) { l.at.Change(func(c jwt.MapClaims) { delete(c, "nonce") }) },
		"another client's":  func(l *login) { l.at.Change(func(c jwt.MapClaims) { c["aud"] = "another" }) },
		"for several":       func(l *login) { l.at.Change(func(c jwt.MapClaims) { c["aud"] = []string{"callbox", "another"} }) },
		"to another":        func(l *login) { l.at.Change(func(c jwt.MapClaims) { c["azp"] = "another" }) },
		"another issuer's":  func(l *login) { l.at.Change(func(c jwt.MapClaims) { c["iss"] = "https://another.example" }) },
		"expired":           func(l *login) { l.at.Change(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Second).Unix() }) },
		"not yet":           func(l *login) { l.at.Change(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Hour).Unix() }) },
		"of another access": func(l *login) { l.at.Change(func(c jwt.MapClaims) { c["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" }) },
		"by a foreign key": func(l *login) {
			l.at.Sign(func(c jwt.MapClaims) (string, error) {
				t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
				t.Header["kid"] = "key-1"
				return t.SignedString(foreign)
			})
		},
		"unsigned": func(l *login) {
			l.at.Sign(func(c jwt.MapClaims) (string, error) {
				return jwt.NewWithClaims(jwt.SigningMethodNone, c).SignedString(jwt.UnsafeAllowNoneSignatureType)
			})
		},
		"by the shared secret": func(l *login) {
			l.at.Sign(func(c jwt.MapClaims) (string, error) {
				return jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(l.at.ClientSecret))
			})
		},
		"no token": func(l *login) { l.at.Sign(func(jwt.MapClaims) (string, error) { return "", nil }) },
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, nil)
			prepare(l)
			if got, err := l.whole(); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %+v, %v", got, err)
			}
			l.at.Change(nil)
			l.at.Sign(nil)
			if _, err := l.whole(); err != nil {
				t.Errorf("the next login: %v", err)
			}
		})
	}
}

func TestKeysMayChange(t *testing.T) {
	l := start(t, nil)
	for range 3 {
		if _, err := l.whole(); err != nil {
			t.Fatal(err)
		}
		l.at.Rotate()
	}
	if n := l.at.Asked("/keys"); n != 3 {
		t.Errorf("the keys were asked for %d times", n)
	}
}

func TestCodeIsGoodOnceAndForOneBrowser(t *testing.T) {
	l := start(t, nil)
	target, f, err := l.Begin(redirect, "/", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	query := l.visit(target)
	_, other, err := l.Begin(redirect, "/", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flow  Flow
		query url.Values
		now   time.Time
		want  error
	}{
		"another browser":  {other, query, time.Now(), ErrState},
		"no browser":       {Flow{}, query, time.Now(), ErrState},
		"no state":         {Flow{}, url.Values{"code": {"x"}}, time.Now(), ErrState},
		"too late":         {f, query, f.Until, ErrState},
		"another provider": {f, url.Values{"state": {f.State}, "code": {"x"}, "iss": {"https://another.example"}}, time.Now(), ErrInvalid},
		"declined":         {f, url.Values{"state": {f.State}, "error": {"access_denied"}}, time.Now(), ErrRefused},
		"no code":          {f, url.Values{"state": {f.State}}, time.Now(), ErrInvalid},
		"a long code":      {f, url.Values{"state": {f.State}, "code": {strings.Repeat("x", 5000)}}, time.Now(), ErrInvalid},
		"as it came":       {f, query, time.Now(), nil},
	} {
		if err := l.CheckState(c.flow, c.query, c.now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another browser's verifier does not go with the code, and the try uses it up.
	if _, err := l.Finish(t.Context(), other, query, time.Now); !errors.Is(err, ErrInvalid) {
		t.Errorf("another browser: %v", err)
	}
	query = l.visit(target)
	if _, err := l.Finish(t.Context(), f, query, time.Now); err != nil {
		t.Errorf("the right browser: %v", err)
	}
	if _, err := l.Finish(t.Context(), f, query, time.Now); !errors.Is(err, ErrInvalid) {
		t.Errorf("once more: %v", err)
	}
}

func TestProviderIsFoundWhenItComes(t *testing.T) {
	at := testkit.NewOpenIDProvider(t)
	at.Handle("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "starting", http.StatusBadGateway) })
	p := New(Config{Issuer: at.Issuer(), ClientID: at.ClientID})
	if _, _, err := p.Begin(redirect, "/", time.Now()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("begun: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	testkit.Eventually(t, 20*time.Second, "it was asked", func() error {
		if at.Asked("/.well-known/openid-configuration") == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if p.Ready() {
		t.Error("ready without an answer")
	}
	at.Handle("/.well-known/openid-configuration", nil)
	<-ended
	if !p.Ready() {
		t.Error("not found in 30 s")
	}
}

func TestHostileProvidersAreBounded(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"issuer":"`)
		for block := strings.Repeat("x", 64<<10); r.Context().Err() == nil; {
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
	}
	l := start(t, nil)
	for _, path := range []string{"/token", "/keys"} {
		l.at.Rotate()
		l.at.Handle(path, endless)
		if _, err := l.whole(); err == nil {
			t.Errorf("%s without an end is taken", path)
		}
		l.at.Handle(path, nil)
	}
	if _, err := l.whole(); err != nil {
		t.Errorf("afterwards: %v", err)
	}

	// An issuer that is not what it says, does not end, or leads to where anybody could answer for it.
	for name, answer := range map[string]func(at *testkit.OpenIDProvider) http.HandlerFunc{
		"endless": func(*testkit.OpenIDProvider) http.HandlerFunc { return endless },
		"redirect": func(*testkit.OpenIDProvider) http.HandlerFunc {
			return http.RedirectHandler("http://192.0.2.1/", http.StatusFound).ServeHTTP
		},
		"another issuer": func(at *testkit.OpenIDProvider) http.HandlerFunc {
			return metadata(at, "issuer", "https://another.example")
		},
		"keys in the open": func(at *testkit.OpenIDProvider) http.HandlerFunc {
			return metadata(at, "jwks_uri", "http://192.0.2.1/keys")
		},
		"token in the open": func(at *testkit.OpenIDProvider) http.HandlerFunc {
			return metadata(at, "token_endpoint", "http://192.0.2.1/token")
		},
		"login by script": func(at *testkit.OpenIDProvider) http.HandlerFunc {
			return metadata(at, "authorization_endpoint", "javascript:alert(1)")
		},
		"no login": func(at *testkit.OpenIDProvider) http.HandlerFunc { return metadata(at, "authorization_endpoint", "") },
	} {
		at := testkit.NewOpenIDProvider(t)
		at.Handle("/.well-known/openid-configuration", answer(at))
		p := New(Config{Issuer: at.Issuer(), ClientID: "callbox"})
		if err := p.discover(t.Context()); err == nil || p.Ready() {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func metadata(at *testkit.OpenIDProvider, name, value string) http.HandlerFunc {
	all := at.Metadata()
	all[name] = value
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(all)
	}
}

func TestLongErrorsAreCut(t *testing.T) {
	if text := clip(errors.New(strings.Repeat("ä\n", 1<<16))); len(text) > maxMessage+3 || strings.Contains(text, "\n") {
		t.Errorf("%d bytes", len(text))
	}
	l := start(t, nil)
	l.at.Handle("/token", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, strings.Repeat("x", 500<<10), http.StatusBadRequest)
	})
	if _, err := l.whole(); !errors.Is(err, ErrInvalid) || len(err.Error()) > 1000 {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
}

// Credentials go as the provider wants them.
func TestSecretGoesInTheFormWhereTheProviderWantsIt(t *testing.T) {
	got := make(chan url.Values, 1)
	at := testkit.NewOpenIDProvider(t)
	all := at.Metadata()
	all["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
	at.Handle("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(all)
	})
	at.Handle("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got <- r.PostForm
		http.Error(w, "no", http.StatusBadRequest)
	})
	l := &login{Provider: New(Config{Issuer: at.Issuer(), ClientID: at.ClientID, ClientSecret: "top"}), t: t, at: at}
	l.Run(t.Context())
	_, _ = l.whole()
	if form := <-got; form.Get("client_secret") != "top" || form.Get("client_id") != at.ClientID {
		t.Errorf("got %v", form)
	}
	if n := at.Asked("/token"); n != 1 {
		t.Errorf("the code was brought %d times", n)
	}
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"email":"a@x.example","email_verified":"true","groups":["staff"],"name":1}`))
	f.Add([]byte(`{"email":null,"groups":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c claims
		if json.Unmarshal(text, &c) != nil {
			return
		}
		c.username([]string{"name", "email"})
		if c.allowed([]Rule{{}}) {
			t.Error("an empty rule lets in")
		}
	})
}
