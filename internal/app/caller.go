package app

import (
	"net/http"
	"strings"
	"time"

	"callbox/auth"
	"callbox/signal"
)

// caller is somebody who may use the API: a logged-in user, a guest, or the holder of a room token.
type caller struct {
	User    string
	Name    string // display name
	Admin   bool
	Login   bool   // a user of this system, not a guest or a token's subject
	Invite  string // Invite.ID, of a guest
	Room    string // the only room; "" any
	Session string // what is revoked
	Owner   string // the name that TURN handles are made of; users and tokens' subjects never share one
	Expires time.Time

	login auth.Session // of a user or guest
}

// caller finds out who a request is from: a token where there is one, else the cookie.
func (s *web) caller(r *http.Request) (caller, *apiError) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return caller{}, errUnauthorized()
		}
		return s.tokenCaller(strings.TrimSpace(token))
	}
	return s.cookieCaller(r)
}

func (s *web) cookieCaller(r *http.Request) (caller, *apiError) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return caller{}, errUnauthorized()
	}
	session, err := s.sessions.Verify(cookie.Value, s.now())
	if err != nil {
		return caller{}, errUnauthorized()
	}
	if guest, ok := auth.ParseGuest(session.User); ok {
		return s.guestCaller(guest, session)
	}
	c, ok := s.user(session.User)
	if !ok {
		return caller{}, errUnauthorized()
	}
	c.Session, c.login, c.Expires = session.ID, session, session.Expires
	return c, nil
}

// user finds a user, be it one with a password or one of the OpenID provider. The two never have a name in common.
func (s *web) user(name string) (caller, bool) {
	if auth.IsExternal(name) {
		u, ok := s.externals.Lookup(name)
		return caller{User: u.Name, Name: u.Display, Login: true, Owner: u.Name}, ok
	}
	u, ok := s.users.Lookup(name)
	return caller{User: u.Name, Name: u.Name, Admin: u.Admin, Login: true, Owner: u.Name}, ok
}

// guestCaller is the caller of a guest's session. The invite is the session that hangs on it: removing it ends what its guests
// do.
func (s *web) guestCaller(g auth.Guest, session auth.Session) (caller, *apiError) {
	invite, ok := s.invites.Lookup(g.Invite, s.now())
	c := caller{
		User: g.User(), Name: g.Name, Room: invite.Room, Invite: invite.ID, Expires: session.Expires, login: session,
		Session: auth.InviteSession(g.Invite), Owner: tokenOwner(auth.InviteSession(g.Invite), g.User()),
	}
	if !ok || s.sessions.Revoked(c.Owner, c.Session, s.now()) {
		return caller{}, errUnauthorized()
	}
	return c, nil
}

func (s *web) tokenCaller(token string) (caller, *apiError) {
	t, err := s.keys.Verify(token, s.now())
	if err != nil {
		// Whoever writes a back end has to know what is wrong with its tokens. Nothing of a token is repeated.
		refusal := errToken()
		refusal.Message = err.Error()
		return caller{}, refusal
	}
	return tokenHolder(t), nil
}

// tokenHolder is the caller of a room token. Its session is the API key's: removing the key ends whatever hangs on it.
func tokenHolder(t auth.RoomToken) caller {
	name := t.Name
	if name == "" {
		name = t.Subject
	}
	return caller{
		User: t.Subject, Name: name, Room: t.Room, Expires: t.Expires,
		Session: auth.KeySession(t.Key), Owner: tokenOwner(auth.KeySession(t.Key), t.Subject),
	}
}

// tokenOwner is the caller.Owner of a token's subject: never a user's name, which has no colon.
func tokenOwner(session, subject string) string { return session + ":" + subject }

// ownerOf is the caller.Owner of a connection.
func ownerOf(id signal.Identity) string {
	if id.Login {
		return id.User
	}
	return tokenOwner(id.Session, id.User)
}
