package app

import (
	"context"
	"net/http"

	"callbox/bus"
	"callbox/signal"
)

// getICEServers answers {"iceServers","ttlSeconds","expiresAt"} for the caller's session.
func (s *web) getICEServers(w http.ResponseWriter, r *http.Request) {
	c, refusal := s.caller(r)
	if refusal != nil {
		writeError(w, refusal)
		return
	}
	room := r.URL.Query().Get("room")
	if room != "" {
		if refusal := checkRoom(room); refusal != nil {
			writeError(w, refusal)
			return
		}
	}
	if c.Room != "" && room == "" {
		room = c.Room
	}
	if c.Room != "" && room != c.Room {
		writeError(w, &apiError{Status: http.StatusForbidden, Code: "not-allowed", Message: "the token is for another room"})
		return
	}
	writeJSON(w, http.StatusOK, s.iceFor(r.Context(), c, clientOf(r), room))
}

// iceFor computes the servers. A bus that does not answer costs the room's relay node its place at the front, not the call.
func (s *web) iceFor(ctx context.Context, c caller, from client, room string) signal.ICE {
	var node bus.NodeID
	if room != "" {
		if state, err := s.bus.Room(ctx, room); err == nil {
			node = state.Relay
		} else {
			s.log.Warn("room's relay node is unknown", logError, err)
		}
	}
	return s.ice(c, from, node)
}
