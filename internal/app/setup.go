package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"callbox/auth"
	"callbox/static"
)

func (s *web) getSetup(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	if !s.setupOpen(w, r, token) {
		return
	}
	s.setupPage(w, http.StatusOK, static.SetupPage{Token: token})
}

func (s *web) setupPage(w http.ResponseWriter, status int, p static.SetupPage) {
	page(w, status, s.log, func(w io.Writer) error { return static.Setup(w, p) })
}

// setupOpen refuses whoever has not the link, or comes too late. Its 128 bits need no throttle.
func (s *web) setupOpen(w http.ResponseWriter, r *http.Request, token string) bool {
	err := auth.ErrSetup
	if s.users.Count() == 0 {
		err = s.setup.Valid(r.Context(), token, s.now())
	}
	if err == nil {
		return true
	}
	if !errors.Is(err, auth.ErrSetup) {
		s.log.Error("set-up link not checked", logError, err)
		refuse(w, r, s.log, errInternal())
		return false
	}
	s.setupGone(w, r)
	return false
}

func (s *web) setupGone(w http.ResponseWriter, r *http.Request) {
	refusal := &apiError{
		Status: http.StatusForbidden, Code: "setup-closed", Title: "This link does not work",
		Message: "this set-up link is too old, or not whole. Where it runs, callbox prints a new one every 30 minutes; or run there: callbox user add NAME",
	}
	if s.users.Count() > 0 {
		refusal.Title = "This server is set up"
		refusal.Message = "the set-up link was good for the first user only. You can log in; others get an account where callbox runs: callbox user add NAME"
	}
	refuse(w, r, s.log, refusal)
}

// postSetup makes the first user, who is an administrator, and logs the user in.
func (s *web) postSetup(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		refuse(w, r, s.log, badBody(err, "bad-form"))
		return
	}
	form := r.PostForm
	token, username, password := form.Get("token"), form.Get("username"), form.Get("password")
	if !s.setupOpen(w, r, token) {
		return
	}
	again := func(status int, message string) {
		s.setupPage(w, status, static.SetupPage{Token: token, Username: username, Error: sentence(message)})
	}
	if password != form.Get("again") {
		again(http.StatusBadRequest, "the two passwords differ")
		return
	}
	err := s.users.AddFirst(r.Context(), s.setup, token, username, password, s.now())
	switch {
	case err == nil:
		s.log.Info("the first user was made by the set-up link")
		s.setCookie(w, r, username)
		seeOther(w, "/")
	case errors.Is(err, auth.ErrName), errors.Is(err, auth.ErrPassword), errors.Is(err, auth.ErrExists):
		again(http.StatusBadRequest, err.Error())
	case errors.Is(err, auth.ErrBusy):
		again(http.StatusServiceUnavailable, "the server is busy; try again in a moment")
	case errors.Is(err, auth.ErrSetup):
		s.setupGone(w, r)
	default:
		s.log.Error("set-up failed", logError, err)
		refuse(w, r, s.log, errInternal())
	}
}

// renewSetup says a new set-up link whenever the last has ended unused, until there is a user or the context ends.
func (a *App) renewSetup(ctx context.Context, every time.Duration, say func(token string)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for a.web.users.Count() == 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if a.web.users.Count() > 0 {
			return
		}
		token, err := a.web.setup.Issue(ctx, time.Now())
		if err != nil {
			a.log.Warn("no new set-up link; make the first user with: callbox user add NAME --admin", logError, err)
			continue
		}
		say(token)
	}
}
