package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"callbox/auth"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/static"
)

// An invite made on the call page lasts a day and lets in as many people as fit into a mesh.
const (
	pageInviteTTL  = 24 * time.Hour
	pageInviteUses = meshPeers
)

// getInvite shows a guest what the link is for. It counts nothing: programs that preview links fetch it too.
func (s *web) getInvite(w http.ResponseWriter, r *http.Request) {
	if invite, ok := s.openInvite(w, r); ok {
		s.invitePage(w, http.StatusOK, static.InvitePage{Room: invite.Room})
	}
}

// openInvite finds the invite of a link. Where ok is false the request is answered: it is not valid or used up, or whoever
// asks needs none to get into the room.
func (s *web) openInvite(w http.ResponseWriter, r *http.Request) (invite auth.Invite, ok bool) {
	invite, refusal := s.findInvite(r)
	if refusal != nil {
		refuse(w, r, s.log, refusal)
		return auth.Invite{}, false
	}
	if c, err := s.cookieCaller(r); err == nil && (c.Login || c.Invite == invite.ID) {
		seeOther(w, callPath(invite.Room))
		return auth.Invite{}, false
	}
	if invite.UsedUp() {
		refuse(w, r, s.log, errInviteUsed())
		return auth.Invite{}, false
	}
	return invite, true
}

// findInvite asks the store for links that are not known here, and slows down who keeps bringing wrong ones.
func (s *web) findInvite(r *http.Request) (auth.Invite, *apiError) {
	token := r.PathValue("token")
	if invite, ok := s.invites.Known(token, s.now()); ok {
		return invite, nil
	}
	from, ctx := clientOf(r).Addr, r.Context()
	subject := "invite link from " + from.String()
	if wait, ok := s.throttle.Allow(from, subject, s.now()); !ok {
		return auth.Invite{}, errThrottled(wait)
	}
	invite, err := s.invites.Find(ctx, token, s.now())
	switch {
	case errors.Is(err, auth.ErrInvite):
		s.told(s.throttle.Failed(context.WithoutCancel(ctx), from, subject, s.now()))
		return auth.Invite{}, errInvite()
	case err != nil:
		s.throttle.Withdraw(from, subject)
		s.log.Error("invite not read", logError, err)
		return auth.Invite{}, errInternal()
	}
	s.throttle.Withdraw(from, subject)
	return invite, nil
}

func errInvite() *apiError {
	return &apiError{
		Status: http.StatusNotFound, Code: "bad-invite", Title: "No such invitation",
		Message: "this invitation has ended or was withdrawn, or its link is not whole. Ask who sent it for another one.",
	}
}

func errInviteUsed() *apiError {
	return &apiError{
		Status: http.StatusGone, Code: "invite-used", Title: "This invitation is used up",
		Message: "as many people as it was made for have come in with it. Ask who sent it for another one.",
	}
}

func (s *web) invitePage(w http.ResponseWriter, status int, p static.InvitePage) {
	page(w, status, s.log, func(w io.Writer) error { return static.Invite(w, p) })
}

// postInvite lets a guest in under the name that was given.
func (s *web) postInvite(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		refuse(w, r, s.log, badBody(err, "bad-form"))
		return
	}
	invite, ok := s.openInvite(w, r)
	if !ok {
		return
	}
	name := r.PostForm.Get("name")
	guest, err := auth.NewGuest(invite.ID, name)
	if err != nil {
		s.invitePage(w, http.StatusBadRequest, static.InvitePage{Room: invite.Room, Name: name, Error: sentence(err.Error())})
		return
	}
	now := s.now()
	invite, err = s.invites.Use(r.Context(), r.PathValue("token"), now)
	switch {
	case err == nil:
	case errors.Is(err, auth.ErrInviteUsed):
		refuse(w, r, s.log, errInviteUsed())
		return
	case errors.Is(err, auth.ErrInvite):
		refuse(w, r, s.log, errInvite())
		return
	default:
		s.log.Error("guest not let in", logError, err)
		refuse(w, r, s.log, errInternal())
		return
	}
	value, session := s.sessions.IssueUntil(guest.SessionUser(), now, invite.Until)
	s.sendCookie(w, r, value, session)
	seeOther(w, callPath(invite.Room))
}

// mayInvite says whether a caller may make guest links.
func (s *web) mayInvite(c caller) bool {
	switch s.inviters() {
	case config.InviteUsers:
		return c.Login
	case config.InviteAdmins:
		return c.Login && c.Admin
	}
	return false
}

// postAPIInvite makes a guest link for a room: a day and a mesh of people, unless it is asked for otherwise.
func (s *web) postAPIInvite(w http.ResponseWriter, r *http.Request) {
	c, refusal := s.caller(r)
	if refusal != nil {
		writeError(w, refusal)
		return
	}
	if !s.mayInvite(c) {
		writeError(w, &apiError{Status: http.StatusForbidden, Code: "not-allowed", Message: "you may not make guest links here (--guest-invites)"})
		return
	}
	in := control.InviteAdd{TTLSeconds: int64(pageInviteTTL / time.Second), Uses: pageInviteUses}
	if refusal := readJSON(r, &in); refusal != nil {
		writeError(w, refusal)
		return
	}
	terms := auth.InviteTerms{Room: in.Room, By: c.User, TTL: in.TTL(), Uses: in.Uses}
	invite, token, err := s.invites.Add(r.Context(), terms, s.now())
	switch {
	case err == nil:
		writeJSON(w, http.StatusCreated, control.MakeNewInvite(invite, token, []string{s.baseOf(r)}))
	case errors.Is(err, auth.ErrInviteTerms):
		writeError(w, &apiError{Status: http.StatusBadRequest, Code: "bad-invite", Message: err.Error()})
	case errors.Is(err, auth.ErrTooManyInvites):
		writeError(w, &apiError{Status: http.StatusServiceUnavailable, Code: "busy", Message: err.Error()})
	default:
		s.log.Error("invite not made", logError, err)
		writeError(w, errInternal())
	}
}
