package app

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"callbox/signal"
)

// roomTimeout bounds the question which node relays for a room.
const roomTimeout = 2 * time.Second

// tokenProtocol marks the WebSocket subprotocol value that carries a room token: browsers can send no header of their own
// with a WebSocket, and a token in a URL ends up in logs.
const tokenProtocol = "token."

// getWebSocket admits a client to signaling. A cookie counts only together with our own origin, because browsers send it
// with the WebSocket of any page; a token counts from our origin, from --origin, and where there is no Origin header.
func (s *web) getWebSocket(w http.ResponseWriter, r *http.Request) {
	kind := s.origins.kind(r)
	if kind == originForeign {
		writeError(w, &apiError{Status: http.StatusForbidden, Code: "origin", Message: "this origin is not allowed; name it with --origin"})
		return
	}
	who := func() (c caller, refusal *apiError) {
		switch token := subprotocolToken(r); {
		case token != "":
			return s.tokenCaller(token)
		case r.Header.Get("Authorization") != "":
			return s.caller(r)
		}
		if c, refusal = s.cookieCaller(r); refusal == nil && kind != originOwn {
			refusal = &apiError{Status: http.StatusForbidden, Code: "origin", Message: "a cookie counts on our own pages only; give a room token"}
		}
		return c, refusal
	}
	c, refusal := who()
	if refusal != nil {
		writeError(w, refusal)
		return
	}
	if !slices.ContainsFunc(subprotocols(r), func(p string) bool { return strings.EqualFold(p, signal.Subprotocol) }) {
		writeError(w, &apiError{Status: http.StatusBadRequest, Code: "bad-subprotocol", Message: "open a WebSocket with the subprotocol " + signal.Subprotocol})
		return
	}
	from := clientOf(r)
	s.hub.Serve(w, r, signal.Identity{
		User: c.User, Name: c.Name, Session: c.Session, Room: c.Room, Login: c.Login, Expires: c.Expires,
		Still: func() bool {
			_, refusal := who()
			return refusal == nil
		},
		ICE: func(room string) (signal.ICE, error) {
			// It is the connection's own reader that waits for the answer.
			ctx, cancel := context.WithTimeout(context.Background(), roomTimeout)
			defer cancel()
			return s.iceFor(ctx, c, from, room), nil
		},
	})
}

// subprotocols are those that a client offers.
func subprotocols(r *http.Request) (out []string) {
	for _, line := range r.Header.Values("Sec-Websocket-Protocol") {
		for value := range strings.SplitSeq(line, ",") {
			out = append(out, strings.TrimSpace(value))
		}
	}
	return out
}

// subprotocolToken is the room token among the subprotocols, or "".
func subprotocolToken(r *http.Request) string {
	for _, value := range subprotocols(r) {
		if token, ok := strings.CutPrefix(value, tokenProtocol); ok {
			return token
		}
	}
	return ""
}
