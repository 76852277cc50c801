package app

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"callbox/auth"
	"callbox/internal/config"
	"callbox/internal/datadir"
	"callbox/internal/openid"
	"callbox/static"
)

const (
	pathOpenID         = "/login/oidc"
	pathOpenIDCallback = "/login/oidc/callback"
	// flowCookie keeps a login under way in the browser that has begun it.
	flowCookie = "callbox_login"
	// openidLogins is how many logins ask the provider at a time.
	openidLogins = 16
)

// openidLogin is the login at an OpenID provider; nil where there is none.
type openidLogin struct {
	provider *openid.Provider
	name     string // of the provider, for people
	sealer   *auth.Sealer
	asking   chan struct{} // holds one element a login that asks the provider
}

// openOpenID prepares the provider that the configuration names. Nobody is asked for anything yet.
func (a *App) openOpenID() error {
	if a.cfg.OIDCIssuer == "" {
		return nil
	}
	cfg := openid.Config{
		Issuer: string(a.cfg.OIDCIssuer), ClientID: a.cfg.OIDCClientID,
		Scopes: a.cfg.OIDCScopes, UsernameClaims: a.cfg.OIDCUsernameClaims, Log: a.log,
	}
	for _, r := range a.cfg.OIDCAllow {
		cfg.Allow = append(cfg.Allow, openid.Rule(r))
	}
	if path := a.cfg.OIDCClientSecretFile; path != "" {
		secrets, err := datadir.ReadSecrets(path)
		if err != nil {
			return err
		}
		cfg.ClientSecret = string(secrets[0])
	}
	sealer, err := auth.NewSealer(a.secrets.Master, "OpenID login")
	if err != nil {
		return err
	}
	a.web.openid = &openidLogin{
		provider: openid.New(cfg), name: a.cfg.OIDCName, sealer: sealer, asking: make(chan struct{}, openidLogins),
	}
	return nil
}

// findOpenID looks for the provider in the background: local logins do not wait for it.
func (a *App) findOpenID(ctx context.Context) {
	if a.web.openid != nil {
		a.web.openid.provider.Run(ctx)
	}
}

// openidButton is what the login page says of the provider.
func (s *web) openidButton(next string) *static.LoginProvider {
	if s.openid == nil {
		return nil
	}
	return &static.LoginProvider{
		Name: s.openid.name, Path: pathOpenID + "?" + url.Values{"next": {next}}.Encode(), Down: !s.openid.provider.Ready(),
	}
}

// requestBase is the URL of this server as the client has used it.
func requestBase(c client) string { return c.Scheme() + "://" + withoutDefaultPort(c) }

// getOpenID sends somebody to the provider.
func (s *web) getOpenID(w http.ResponseWriter, r *http.Request) {
	c := clientOf(r)
	if s.openid == nil || !validHost(c.Host) {
		s.notFound(w, r)
		return
	}
	next, base := localPath(r.URL.Query().Get("next")), requestBase(c)
	// The provider sends people back to the one address that it was told of, where the cookie must be. Once: a proxy that
	// gives the server another host than the browser's would send people in a circle.
	if public := s.publicURL(); public != "" {
		if public != base && !r.URL.Query().Has("sent") {
			redirect(w, public+pathOpenID+"?"+url.Values{"next": {next}, "sent": {""}}.Encode())
			return
		}
		base = public
	}
	target, flow, err := s.openid.provider.Begin(base+pathOpenIDCallback, next, s.now())
	if err != nil {
		s.openidFailed(w, next, http.StatusServiceUnavailable, "")
		return
	}
	text, err := json.Marshal(flow)
	if err != nil {
		s.log.Error("login at the provider not begun", logError, err)
		refuse(w, r, s.log, errInternal())
		return
	}
	s.sendFlow(w, r, s.openid.sealer.Seal(text), flow.Until)
	redirect(w, target)
}

// sendFlow sets the cookie of a login under way; "" takes it back.
func (s *web) sendFlow(w http.ResponseWriter, r *http.Request, value string, until time.Time) {
	cookie := http.Cookie{
		Name: flowCookie, Value: value, Path: pathOpenID, Expires: until,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: clientOf(r).Secure,
	}
	if value == "" {
		cookie.Expires, cookie.MaxAge = time.Time{}, -1
	}
	http.SetCookie(w, &cookie)
}

// flowOf is the login that a browser has begun; a zero one where it has not.
func (s *web) flowOf(r *http.Request) (flow openid.Flow) {
	cookie, err := r.Cookie(flowCookie)
	if err != nil {
		return openid.Flow{}
	}
	text, err := s.openid.sealer.Open(cookie.Value)
	if err != nil || json.Unmarshal(text, &flow) != nil {
		return openid.Flow{}
	}
	return flow
}

// getOpenIDCallback is where the provider sends people back to. Whatever comes of it, the login that was under way is over.
func (s *web) getOpenIDCallback(w http.ResponseWriter, r *http.Request) {
	if s.openid == nil {
		s.notFound(w, r)
		return
	}
	flow, query := s.flowOf(r), r.URL.Query()
	s.sendFlow(w, r, "", time.Time{})
	person, refusal := s.openidPerson(r, flow, query)
	if refusal == nil {
		var user auth.External
		if user, refusal = s.openidUser(r.Context(), person); refusal == nil {
			s.setCookie(w, r, user.Name)
			seeOther(w, localPath(flow.Next))
			return
		}
	}
	if refusal.RetryAfter > 0 {
		w.Header().Set("Retry-After", retrySeconds(refusal.RetryAfter))
	}
	s.openidFailed(w, localPath(flow.Next), refusal.Status, refusal.Message)
}

// openidFailed shows the login page again and says why; message "" is that the provider cannot be reached.
func (s *web) openidFailed(w http.ResponseWriter, next string, status int, message string) {
	if message == "" {
		message = "logging in with " + s.openid.name + " does not work at the moment; try again later"
	}
	s.loginPage(w, status, static.LoginPage{Next: next, Error: sentence(message)})
}

// openidPerson asks the provider who has come back from it. Only a browser that has begun a login makes the server ask, and
// that not without bounds.
func (s *web) openidPerson(r *http.Request, flow openid.Flow, query url.Values) (openid.Person, *apiError) {
	if err := s.openid.provider.CheckState(flow, query, s.now()); err != nil {
		return openid.Person{}, s.openidRefusal(err)
	}
	from, ctx := clientOf(r).Addr, r.Context()
	subject := "OpenID login from " + from.String()
	if wait, ok := s.throttle.Allow(from, subject, s.now()); !ok {
		return openid.Person{}, errThrottled(wait)
	}
	select {
	case s.openid.asking <- struct{}{}:
		defer func() { <-s.openid.asking }()
	default:
		s.throttle.Withdraw(from, subject)
		return openid.Person{}, &apiError{Status: http.StatusServiceUnavailable, RetryAfter: time.Second, Code: "busy", Message: "many people are logging in; try again in a moment"}
	}
	person, err := s.openid.provider.Finish(ctx, flow, query, s.now)
	switch {
	case errors.Is(err, openid.ErrInvalid):
		s.told(s.throttle.Failed(context.WithoutCancel(ctx), from, subject, s.now()))
	default:
		s.throttle.Withdraw(from, subject)
	}
	if err != nil {
		return openid.Person{}, s.openidRefusal(err)
	}
	return person, nil
}

// openidRefusal tells people what they can do, and the log what there is to know.
func (s *web) openidRefusal(err error) *apiError {
	e := &apiError{Status: http.StatusForbidden, Code: "oidc-refused"}
	switch {
	case errors.Is(err, openid.ErrState):
		e.Status, e.Message = http.StatusBadRequest, "this login was begun in another browser or too long ago; log in once more"
	case errors.Is(err, openid.ErrRefused):
		e.Message = s.openid.name + " has not logged you in"
	case errors.Is(err, openid.ErrNotAllowed):
		e.Message = "your account at " + s.openid.name + " may not be used here; ask the owner of this server"
	case errors.Is(err, openid.ErrNoName):
		e.Message = s.openid.name + " does not say by which name you log in; ask the owner of this server"
	case errors.Is(err, openid.ErrInvalid):
		e.Status, e.Message = http.StatusBadRequest, "what "+s.openid.name+" has answered is not valid; log in once more"
	default:
		e.Status, e.Message = http.StatusServiceUnavailable, "logging in with "+s.openid.name+" does not work at the moment; try again later"
	}
	s.log.Warn("login at the OpenID provider failed", logError, err)
	return e
}

// openidUser is the user of somebody whom the provider has logged in.
func (s *web) openidUser(ctx context.Context, p openid.Person) (auth.External, *apiError) {
	user, err := s.externals.LogIn(ctx, auth.Identity{Issuer: p.Issuer, Subject: p.Subject, Name: p.Username, Display: p.Name}, s.now())
	switch {
	case err == nil:
		return user, nil
	case errors.Is(err, auth.ErrExternalTaken), errors.Is(err, auth.ErrExternalName):
		s.log.Warn("login at the OpenID provider failed", logError, err)
		return auth.External{}, &apiError{Status: http.StatusForbidden, Code: "oidc-name", Message: err.Error()}
	}
	s.log.Error("login failed", logError, err)
	return auth.External{}, errInternal()
}

// redirect sends a browser to a page of another server, or of this one by another name.
func redirect(w http.ResponseWriter, target string) {
	h := w.Header()
	h.Set("Location", target)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
}

// checkOpenID finds the faults of the file that its settings name.
func checkOpenID(cfg config.Config) config.Faults {
	if cfg.OIDCClientSecretFile == "" {
		return nil
	}
	_, err := datadir.ReadSecrets(cfg.OIDCClientSecretFile)
	var file *datadir.FileError
	if !errors.As(err, &file) {
		return nil
	}
	remedy := file.Remedy
	if strings.Contains(remedy, "openssl") { // this one is not ours to make
		remedy = "write the secret that the provider has issued into the file, on one line, and run: chmod 600 " + file.Path
	}
	return config.Faults{{Key: "oidc-client-secret-file", Value: file.Where(), Problem: file.Problem, Remedy: remedy}}
}
