package testkit

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// OpenIDProvider is an OpenID Connect provider on loopback: discovery, the Authorization Code flow with PKCE, RS256 and
// keys that change. Everybody who comes is who Login says, without being asked.
type OpenIDProvider struct {
	Server       *httptest.Server
	ClientID     string
	ClientSecret string

	t testing.TB

	mu       sync.Mutex // guards the following
	login    map[string]any
	userinfo map[string]any
	keys     []*rsa.PrivateKey // the last signs
	codes    map[string]grant  // not used yet
	redirect string            // the one registered redirect URL
	change   func(jwt.MapClaims)
	sign     func(jwt.MapClaims) (string, error)
	handle   map[string]http.HandlerFunc
	asked    map[string]int
}

// grant is what a code stands for.
type grant struct{ redirect, challenge, nonce string }

// NewOpenIDProvider starts a provider, and stops it with the test.
func NewOpenIDProvider(t testing.TB) *OpenIDProvider {
	t.Helper()
	p := &OpenIDProvider{
		ClientID: "callbox", ClientSecret: "a secret of the provider", t: t,
		login: map[string]any{"sub": "1", "preferred_username": "ada"},
		codes: map[string]grant{}, handle: map[string]http.HandlerFunc{}, asked: map[string]int{},
	}
	p.Rotate()
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Server.Close)
	return p
}

// Issuer is the provider's URL.
func (p *OpenIDProvider) Issuer() string { return p.Server.URL }

// Login says who comes next: the claims of the ID token, and those that are told at the UserInfo endpoint alone.
func (p *OpenIDProvider) Login(claims, userinfo map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.login, p.userinfo = claims, userinfo
}

// Register sets the one redirect URL that is taken; "" takes any.
func (p *OpenIDProvider) Register(redirect string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.redirect = redirect
}

// Change alters the claims of ID tokens before they are signed; nil: it does not.
func (p *OpenIDProvider) Change(f func(jwt.MapClaims)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change = f
}

// Sign replaces the signing of ID tokens; nil: the provider's own.
func (p *OpenIDProvider) Sign(f func(jwt.MapClaims) (string, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sign = f
}

// Handle replaces the answers at a path; nil: the provider's own.
func (p *OpenIDProvider) Handle(path string, f http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handle[path] = f
}

// Asked says how often a path was asked for.
func (p *OpenIDProvider) Asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// Rotate makes a new key that signs from now on; the one before is published no more.
func (p *OpenIDProvider) Rotate() {
	key, err := rsa.GenerateKey(rand.Reader, 1024) // short, as it guards nothing and is made often
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, key)
}

// ServeHTTP is the provider.
func (p *OpenIDProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked[r.URL.Path]++
	replaced := p.handle[r.URL.Path]
	p.mu.Unlock()
	if replaced != nil {
		replaced(w, r)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		p.answer(w, p.metadata())
	case "/authorize":
		p.authorize(w, r)
	case "/token":
		p.token(w, r)
	case "/keys":
		public := p.keys[len(p.keys)-1].PublicKey
		p.answer(w, map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": p.kid(),
			"n": encode64(public.N.Bytes()), "e": encode64(big.NewInt(int64(public.E)).Bytes()),
		}}})
	case "/userinfo":
		all := map[string]any{"sub": p.login["sub"]}
		maps.Copy(all, p.userinfo)
		p.answer(w, all)
	default:
		http.NotFound(w, r)
	}
}

func (p *OpenIDProvider) metadata() map[string]any {
	u := p.Server.URL
	return map[string]any{
		"issuer": u, "authorization_endpoint": u + "/authorize", "token_endpoint": u + "/token", "jwks_uri": u + "/keys",
		"userinfo_endpoint": u + "/userinfo", "id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
	}
}

// Metadata is what the provider says of itself.
func (p *OpenIDProvider) Metadata() map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.metadata()
}

func (p *OpenIDProvider) kid() string { return fmt.Sprintf("key-%d", len(p.keys)) }

func (p *OpenIDProvider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	for name, bad := range map[string]bool{
		"response_type": q.Get("response_type") != "code", "client_id": q.Get("client_id") != p.ClientID,
		"scope": !strings.Contains(" "+q.Get("scope")+" ", " openid "), "state": len(q.Get("state")) < 16, "nonce": len(q.Get("nonce")) < 16,
		"code_challenge": q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43,
		"redirect_uri":   p.redirect != "" && q.Get("redirect_uri") != p.redirect,
	} {
		if bad {
			http.Error(w, "bad "+name, http.StatusBadRequest)
			return
		}
	}
	code := rand.Text()
	p.codes[code] = grant{redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), nonce: q.Get("nonce")}
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		http.Error(w, "bad redirect_uri", http.StatusBadRequest)
		return
	}
	back.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.Server.URL}}.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

func (p *OpenIDProvider) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code})
	}
	id, secret, _ := r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	if id != p.ClientID || secret != p.ClientSecret {
		refuse(http.StatusUnauthorized, "invalid_client")
		return
	}
	g, ok := p.codes[r.FormValue("code")]
	delete(p.codes, r.FormValue("code")) // good once, and for one try
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if !ok || r.FormValue("grant_type") != "authorization_code" || r.FormValue("redirect_uri") != g.redirect || encode64(sum[:]) != g.challenge {
		refuse(http.StatusBadRequest, "invalid_grant")
		return
	}
	now := time.Now()
	claims := jwt.MapClaims{"iss": p.Server.URL, "aud": p.ClientID, "nonce": g.nonce, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}
	maps.Copy(claims, p.login)
	if p.change != nil {
		p.change(claims)
	}
	sign := p.sign
	if sign == nil {
		sign = p.signed
	}
	text, err := sign(claims)
	if err != nil {
		refuse(http.StatusInternalServerError, "server_error")
		return
	}
	p.answer(w, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 60, "id_token": text})
}

func (p *OpenIDProvider) signed(claims jwt.MapClaims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header["kid"] = p.kid()
	return t.SignedString(p.keys[len(p.keys)-1])
}

func (p *OpenIDProvider) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
