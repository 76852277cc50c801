// Package openid logs people in at an OpenID Connect provider, with the
// Authorization Code flow and PKCE (RFC 7636). It says who they are there; who
// they are here, and their sessions, are the caller's affair, and so is HTTP
// with the browser.
//
// Nothing that the provider says is believed without bounds: answers have a
// largest size and a longest time, and all its addresses are https:// or, for
// a provider on this machine, loopback.
package openid

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Errors that callers tell apart.
var (
	ErrUnreachable = errors.New("the provider cannot be reached")     // or not yet, or does not answer as a provider does
	ErrState       = errors.New("the login was not begun here")       // or too long ago, or by another browser
	ErrRefused     = errors.New("the provider did not log in")        // the person declined, or the provider did
	ErrInvalid     = errors.New("the provider's answer is not valid") // signature, audience, times, nonce, code
	ErrNotAllowed  = errors.New("the account may not log in here")    // Config.Allow
	ErrNoName      = errors.New("the provider gives no user name")    // Config.UsernameClaims
)

const (
	// flowLife is how long somebody may take at the provider.
	flowLife = 10 * time.Minute
	// retryFirst and retryLast bound the pauses between tries to reach the provider.
	retryFirst = time.Second
	retryLast  = 5 * time.Minute
	// maxCode bounds the code and state that a browser brings, in bytes.
	maxCode = 4096
)

// Config is a provider and what is wanted of it.
type Config struct {
	Issuer         string
	ClientID       string
	ClientSecret   string   // "": a public client
	Scopes         []string // openid is added where it is missing
	UsernameClaims []string // the first that is there names the user
	Allow          []Rule   // any of them lets in; none: everybody whom the provider lets in
	Log            *slog.Logger
}

// Rule lets accounts in: by the domain of a verified mail address, or by a group.
type Rule struct{ Domain, Group string }

// Person is who the provider says has logged in.
type Person struct {
	Issuer, Subject string
	Username        string // of the first claim of Config.UsernameClaims
	Name            string // to show; "" where there is none
}

// Flow is a login under way. The browser keeps it, sealed.
type Flow struct {
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"` // PKCE
	Redirect string    `json:"redirect"` // where the provider sends the browser back to
	Next     string    `json:"next"`     // the caller's
	Until    time.Time `json:"until"`
}

// Provider is an OpenID provider. It is found in the background (Run).
type Provider struct {
	cfg   Config
	http  *http.Client
	found atomic.Pointer[discovered]
}

// discovered is what the provider says of itself.
type discovered struct {
	provider *oidc.Provider
	endpoint oauth2.Endpoint
}

// New returns a provider that has not been asked for anything yet.
func New(cfg Config) *Provider {
	if !slices.Contains(cfg.Scopes, oidc.ScopeOpenID) {
		cfg.Scopes = append([]string{oidc.ScopeOpenID}, cfg.Scopes...)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Provider{cfg: cfg, http: client(loopbackURL(cfg.Issuer))}
}

// Ready says whether the provider has answered.
func (p *Provider) Ready() bool { return p.found.Load() != nil }

// Run asks the provider what it is, again and again until it has answered or
// the context ends.
func (p *Provider) Run(ctx context.Context) {
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		err := p.discover(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		p.cfg.Log.Warn("the OpenID provider cannot be used yet; local logins go on", "issuer", p.cfg.Issuer, "error", clip(err), "retry", pause.String())
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

func (p *Provider) discover(ctx context.Context) error {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, p.http), p.cfg.Issuer)
	if err != nil {
		return err
	}
	var meta struct {
		JWKS    string   `json:"jwks_uri"`
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := provider.Claims(&meta); err != nil {
		return err
	}
	endpoint := provider.Endpoint()
	allowLoopback := loopbackURL(p.cfg.Issuer)
	for name, text := range map[string]string{
		"authorization_endpoint": endpoint.AuthURL, "token_endpoint": endpoint.TokenURL, "jwks_uri": meta.JWKS,
	} {
		if u, err := url.Parse(text); err != nil || !safeURL(u, allowLoopback) {
			return fmt.Errorf("its %s is not an https:// URL", name)
		}
	}
	// Not tried out: a second try would bring the code a second time.
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if p.cfg.ClientSecret == "" || len(meta.Methods) > 0 && !slices.Contains(meta.Methods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	p.found.Store(&discovered{provider: provider, endpoint: endpoint})
	return nil
}

// Begin returns the provider's page to send a browser to, which comes back to
// redirect: ErrUnreachable.
func (p *Provider) Begin(redirect, next string, now time.Time) (string, Flow, error) {
	d := p.found.Load()
	if d == nil {
		return "", Flow{}, ErrUnreachable
	}
	f := Flow{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Redirect: redirect, Next: next, Until: now.Add(flowLife)}
	return p.oauth(d, redirect).AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), f, nil
}

func (p *Provider) oauth(d *discovered, redirect string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret,
		Endpoint: d.endpoint, RedirectURL: redirect, Scopes: p.cfg.Scopes,
	}
}

// CheckState says whether what a browser came back with belongs to the flow
// that it kept, before anything else is done with it: ErrState, ErrRefused.
func (p *Provider) CheckState(f Flow, query url.Values, now time.Time) error {
	state := query.Get("state")
	if f.State == "" || subtle.ConstantTimeCompare([]byte(state), []byte(f.State)) != 1 || !now.Before(f.Until) {
		return ErrState
	}
	// A provider that names itself must be the right one (RFC 9207).
	if iss := query.Get("iss"); iss != "" && iss != p.cfg.Issuer {
		return fmt.Errorf("%w: another provider has answered", ErrInvalid)
	}
	if query.Has("error") {
		return fmt.Errorf("%w: %.64q", ErrRefused, query.Get("error"))
	}
	if code := query.Get("code"); code == "" || len(code) > maxCode {
		return fmt.Errorf("%w: it has no code", ErrInvalid)
	}
	return nil
}

// Finish asks the provider who has logged in. The query is one that CheckState
// has let through.
func (p *Provider) Finish(ctx context.Context, f Flow, query url.Values, now func() time.Time) (Person, error) {
	d := p.found.Load()
	if d == nil {
		return Person{}, ErrUnreachable
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.http), finishTimeout)
	defer cancel()
	token, err := p.oauth(d, f.Redirect).Exchange(ctx, query.Get("code"), oauth2.VerifierOption(f.Verifier))
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < http.StatusInternalServerError:
		return Person{}, fmt.Errorf("%w: it does not take the code: %s", ErrInvalid, clip(err))
	case err != nil:
		return Person{}, fmt.Errorf("%w: %s", ErrUnreachable, clip(err))
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Person{}, fmt.Errorf("%w: it has no id_token", ErrInvalid)
	}
	id, err := d.provider.Verifier(&oidc.Config{ClientID: p.cfg.ClientID, Now: now}).Verify(ctx, raw)
	if err != nil {
		return Person{}, fmt.Errorf("%w: %s", ErrInvalid, clip(err))
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1 {
		return Person{}, fmt.Errorf("%w: it is for another login (nonce)", ErrInvalid)
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(token.AccessToken); err != nil {
			return Person{}, fmt.Errorf("%w: %s", ErrInvalid, clip(err))
		}
	}
	return p.person(ctx, d, id, token)
}
