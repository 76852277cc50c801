package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"callbox/internal/config"
	"callbox/signal"
)

// compat is which protocols of other servers are spoken, and who is admitted to them.
type compat struct {
	protocols []config.Compat
	open      bool // anybody, from any origin
	maxPeers  int  // in one room
}

func newCompat(cfg config.Config) compat {
	return compat{protocols: cfg.Compat, open: bool(cfg.CompatOpen), maxPeers: cfg.MaxPeers}
}

// String lists the protocols.
func (c compat) String() string {
	names := make([]string, len(c.protocols))
	for i, p := range c.protocols {
		names[i] = string(p)
	}
	return strings.Join(names, " ")
}

// openUser is who everybody is that --compat-open admits.
const openUser = "anybody"

// routes adds those of the protocols that are on.
func (c compat) routes(s *web, mux *http.ServeMux) {
	if slices.Contains(c.protocols, config.PeerJS) {
		mux.Handle("/peerjs", c.withCORS(s, methods{"GET": s.getPeerJS}))
		mux.Handle("/peerjs/{$}", c.withCORS(s, methods{"GET": s.getPeerJS}))
		for _, end := range []string{"", "/{$}"} {
			mux.Handle("/peerjs/{key}/id"+end, c.withCORS(s, methods{"GET": s.getPeerJSID}))
			mux.Handle("/peerjs/{key}/peers"+end, c.withCORS(s, methods{"GET": s.getPeerJSPeers}))
		}
		mux.Handle("/peerjs/peerjs", methods{"GET": s.getPeerJSSocket})
	}
	if slices.Contains(c.protocols, config.YWebRTC) {
		mux.Handle("/y-webrtc", methods{"GET": s.getYWebRTC})
		mux.Handle("/y-webrtc/", methods{"GET": s.getYWebRTC})
	}
	if slices.Contains(c.protocols, config.Ayame) {
		mux.Handle("/ayame/signaling", methods{"GET": s.getAyame})
	}
	if slices.Contains(c.protocols, config.Matchbox) {
		mux.Handle("/matchbox/{room}", methods{"GET": s.getMatchbox})
	}
}

// withCORS lets pages read the answers: with --compat-open all of them, else those of --origin.
func (c compat) withCORS(s *web, next http.Handler) http.Handler {
	if !c.open {
		return s.origins.withCORS(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.Header().Set("Access-Control-Allow-Methods", "GET")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// fromHere refuses a WebSocket of a page that may not open it. A cookie never counts on these paths, so an allowed origin
// may do as much as our own.
func (c compat) fromHere(s *web, w http.ResponseWriter, r *http.Request) bool {
	if c.open || s.origins.kind(r) != originForeign {
		return true
	}
	writeError(w, &apiError{Status: http.StatusForbidden, Code: "origin", Message: "this origin is not allowed; name it with --origin"})
	return false
}

// admit says who the bearer of a token is. room is the only room wanted, or "" where there are none. Nobody who is
// admitted without a token gets ICE servers.
func (s *web) admit(token, room string) (signal.Identity, bool) {
	if s.compat.open {
		return signal.Identity{User: openUser, Open: true}, true
	}
	c, refusal := s.tokenCaller(token)
	if refusal != nil || room != "" && c.Room != "" && c.Room != room {
		return signal.Identity{}, false
	}
	return signal.Identity{
		User: c.User, Name: c.Name, Session: c.Session, Room: c.Room, Expires: c.Expires,
		Still: func() bool {
			_, refusal := s.tokenCaller(token)
			return refusal == nil
		},
	}, true
}

// getPeerJS tells what answers here, as clients and monitoring of PeerServer expect it.
func (s *web) getPeerJS(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		Website     string `json:"website"`
	}{"callbox", "Signaling for WebRTC applications, in the protocol of PeerServer.", "https://peerjs.com/"})
}

// getPeerJSID makes an id for a client that has none. A wrong key is refused, in words, when the client opens its socket.
func (s *web) getPeerJSID(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(newUUID())) // a client that is gone is nobody's fault
}

// getPeerJSPeers lists nobody: who may call whom is told by applications, not by the server.
func (s *web) getPeerJSPeers(w http.ResponseWriter, _ *http.Request) {
	writeError(w, &apiError{Status: http.StatusUnauthorized, Code: "unauthorized", Message: "the list of peers is not given out"})
}

func (s *web) getPeerJSSocket(w http.ResponseWriter, r *http.Request) {
	if !s.compat.fromHere(s, w, r) {
		return
	}
	s.hub.ServePeerJS(w, r, func(token string) (signal.Identity, string, bool) {
		id, ok := s.admit(token, "")
		if s.compat.open {
			return id, token, ok
		}
		return id, id.User, ok
	})
}

func (s *web) getYWebRTC(w http.ResponseWriter, r *http.Request) {
	if !s.compat.fromHere(s, w, r) {
		return
	}
	if id, ok := s.admit(r.URL.Query().Get("token"), ""); ok {
		s.hub.ServeYWebRTC(w, r, id)
		return
	}
	writeError(w, errToken())
}

// getAyame admits a client later, by the signaling key of its first message.
func (s *web) getAyame(w http.ResponseWriter, r *http.Request) {
	if !s.compat.fromHere(s, w, r) {
		return
	}
	from := clientOf(r)
	s.hub.ServeAyame(w, r, func(key, room string) (signal.Identity, bool) {
		id, ok := s.admit(key, room)
		if !ok || id.Open {
			return id, ok
		}
		c, refusal := s.tokenCaller(key)
		if refusal != nil {
			return signal.Identity{}, false
		}
		id.ICE = func(room string) (signal.ICE, error) {
			ctx, cancel := context.WithTimeout(context.Background(), roomTimeout)
			defer cancel()
			return s.iceFor(ctx, c, from, room), nil
		}
		return id, true
	})
}

func (s *web) getMatchbox(w http.ResponseWriter, r *http.Request) {
	if !s.compat.fromHere(s, w, r) {
		return
	}
	room, next := r.PathValue("room"), 0
	if refusal := checkRoom(room); refusal != nil {
		writeError(w, refusal)
		return
	}
	if text := r.URL.Query().Get("next"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 2 || n > s.compat.maxPeers {
			writeError(w, &apiError{Status: http.StatusBadRequest, Code: "bad-next", Message: fmt.Sprintf("next is a number from 2 to %d (--max-peers)", s.compat.maxPeers)})
			return
		}
		next = n
	}
	if id, ok := s.admit(r.URL.Query().Get("token"), room); ok {
		s.hub.ServeMatchbox(w, r, id, room, next)
		return
	}
	writeError(w, errToken())
}

// newUUID is a random one (RFC 9562, section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
