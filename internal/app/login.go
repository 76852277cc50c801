package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"callbox/auth"
	"callbox/static"
)

func (s *web) getLogin(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.URL.Query().Get("next"))
	// A guest may have an account too, and needs the form.
	if c, err := s.cookieCaller(r); err == nil && c.Login {
		seeOther(w, next)
		return
	}
	p := static.LoginPage{Next: next}
	if s.users.Count() == 0 {
		p.Error = "There is no user yet. Open the set-up link that callbox has printed where it was started, or in its log."
	}
	s.loginPage(w, http.StatusOK, p)
}

func (s *web) loginPage(w http.ResponseWriter, status int, p static.LoginPage) {
	p.Own, p.Provider = s.ownAuthority(), s.openidButton(p.Next)
	page(w, status, s.log, func(w io.Writer) error { return static.Login(w, p) })
}

func (s *web) postLogin(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		refuse(w, r, s.log, badBody(err, "bad-form"))
		return
	}
	next, username := localPath(r.PostForm.Get("next")), r.PostForm.Get("username")
	refusal := s.login(w, r, username, r.PostForm.Get("password"))
	if refusal == nil {
		seeOther(w, next)
		return
	}
	if refusal.RetryAfter > 0 {
		w.Header().Set("Retry-After", retrySeconds(refusal.RetryAfter))
	}
	s.loginPage(w, refusal.Status, static.LoginPage{Next: next, Username: username, Error: sentence(refusal.Message)})
}

func (s *web) postAPILogin(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if err := readJSON(r, &body); err != nil {
		writeError(w, err)
		return
	}
	if err := s.login(w, r, body.Username, body.Password); err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// login checks a password and sets the cookie.
func (s *web) login(w http.ResponseWriter, r *http.Request, username, password string) *apiError {
	from, ctx := clientOf(r).Addr, r.Context()
	if wait, ok := s.throttle.Allow(from, username, s.now()); !ok {
		return errThrottled(wait)
	}
	user, err := s.users.Verify(ctx, username, password)
	switch {
	case errors.Is(err, auth.ErrCredentials):
		s.told(s.throttle.Failed(context.WithoutCancel(ctx), from, username, s.now()))
		return &apiError{Status: http.StatusUnauthorized, Code: "bad-credentials", Message: "the name or the password is wrong"}
	case err != nil:
		s.throttle.Withdraw(from, username)
		if !errors.Is(err, auth.ErrBusy) {
			s.log.Error("login failed", logError, err)
			return errInternal()
		}
		return &apiError{Status: http.StatusServiceUnavailable, RetryAfter: time.Second, Code: "busy", Message: "many people are logging in; try again in a moment"}
	}
	s.told(s.throttle.Succeeded(context.WithoutCancel(ctx), from, username))
	s.setCookie(w, r, user.Name)
	return nil
}

// told logs that other nodes have not heard of an attempt. The attempt counts here all the same.
func (s *web) told(err error) {
	if err != nil {
		s.log.Warn("login attempt not shared with other nodes", logError, err)
	}
}

// setCookie begins a session of a user.
func (s *web) setCookie(w http.ResponseWriter, r *http.Request, user string) {
	value, session := s.sessions.Issue(user, s.now())
	s.sendCookie(w, r, value, session)
}

func (s *web) sendCookie(w http.ResponseWriter, r *http.Request, value string, session auth.Session) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: "/", Expires: session.Expires,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: clientOf(r).Secure,
	})
}

// getLogout shows the page with the button: a link that others can put anywhere logs nobody out.
func (s *web) getLogout(w http.ResponseWriter, _ *http.Request) { seeOther(w, "/") }

// postLogout ends the session everywhere: its WebSockets and its relays too.
func (s *web) postLogout(w http.ResponseWriter, r *http.Request) {
	if c, err := s.cookieCaller(r); err == nil {
		if err := s.endSession(r.Context(), c); err != nil {
			s.log.Error("session not revoked", logError, err)
			refuse(w, r, s.log, errInternal())
			return
		}
		s.revoked()
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Path: "/", MaxAge: -1,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: clientOf(r).Secure,
	})
	seeOther(w, "/login")
}

func (s *web) endSession(ctx context.Context, c caller) error {
	if c.Invite != "" {
		return s.sessions.RevokeGuest(ctx, c.login, c.Owner, s.now())
	}
	return s.sessions.Revoke(ctx, c.login, s.now())
}

// localPath is next where it is a path of this server, else "/": a login page that sends people elsewhere helps thieves.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || len(next) > 1024 || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return "/"
	}
	// As it is written and as it is read: some browsers and proxies take a backslash for a slash.
	for _, path := range []string{next, u.Path} {
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") ||
			strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
			return "/"
		}
	}
	return next
}

// seeOther redirects after a form, or to one. The path is local.
func seeOther(w http.ResponseWriter, path string) {
	h := w.Header()
	h.Set("Location", path)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
}

// sentence writes a message of the API as a page shows it.
func sentence(message string) string {
	if message == "" {
		return ""
	}
	return capital(message) + "."
}

// capital begins a message as a sentence does. What ends with a command to copy keeps its end.
func capital(message string) string {
	if message == "" {
		return ""
	}
	return strings.ToUpper(message[:1]) + message[1:]
}
