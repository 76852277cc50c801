package app

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"callbox/static"
)

const (
	// maxRoomName is the bound that signaling has too.
	maxRoomName = 64
	// meshPeers is how many people a call page connects with each other directly.
	meshPeers = 8
)

func (s *web) getHome(w http.ResponseWriter, r *http.Request) {
	c, err := s.cookieCaller(r)
	if err != nil {
		seeOther(w, "/login")
		return
	}
	if c.Room != "" {
		seeOther(w, callPath(c.Room)) // the only place where a guest may be
		return
	}
	page(w, http.StatusOK, s.log, func(w io.Writer) error {
		return static.Home(w, static.HomePage{User: c.User, Admin: c.Admin, Invites: s.mayInvite(c), Own: s.ownAuthority()})
	})
}

// getCall is the private call page of one room, with everything in it that its script needs to begin.
func (s *web) getCall(w http.ResponseWriter, r *http.Request) {
	c, refusal := s.cookieCaller(r)
	if refusal != nil {
		seeOther(w, "/login?"+url.Values{"next": {r.URL.RequestURI()}}.Encode())
		return
	}
	room := r.PathValue("room")
	if refusal := checkRoom(room); refusal != nil {
		refuse(w, r, s.log, refusal)
		return
	}
	if c.Room != "" && c.Room != room {
		refuse(w, r, s.log, &apiError{Status: http.StatusForbidden, Code: "not-allowed", Title: "Another call", Message: "your invitation is for another call. Who has an account can log in."})
		return
	}
	page(w, http.StatusOK, s.log, func(out io.Writer) error {
		return static.Call(out, static.CallPage{Config: static.CallConfig{
			User: c.User, Name: c.Name, Room: room, ICE: s.iceFor(r.Context(), c, clientOf(r), room),
			MaxPeers: meshPeers, Version: s.version, Link: s.baseOf(r) + callPath(room), Guest: c.Invite != "", Invites: s.mayInvite(c),
		}})
	})
}

// callPath is the call page of a room.
func callPath(room string) string { return "/call/" + url.PathEscape(room) }

// checkRoom refuses what signaling would refuse.
func checkRoom(room string) *apiError {
	problem := ""
	switch {
	case room == "":
		problem = "a room needs a name"
	case len(room) > maxRoomName:
		problem = "the room's name is longer than 64 bytes"
	case strings.HasPrefix(room, "@"):
		problem = "a room's name does not begin with @"
	case !utf8.ValidString(room) || strings.ContainsFunc(room, unicode.IsControl):
		problem = "a room's name is text without control characters"
	default:
		return nil
	}
	return &apiError{Status: http.StatusBadRequest, Code: "bad-room", Title: "No such room", Message: problem}
}
