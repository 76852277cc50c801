package app

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"callbox/auth"
)

// maxTURNUser bounds the names that other people's applications ask credentials for, in bytes.
const maxTURNUser = 128

// turnAnswer is the response of draft-uberti-behave-turn-rest-00 section 2.2.
type turnAnswer struct {
	Username string   `json:"username"`
	Password string   `json:"password"`
	TTL      int      `json:"ttl"` // seconds
	URIs     []string `json:"uris"`
}

// getTURN gives other people's applications credentials in the shape of draft-uberti-behave-turn-rest-00: ?service=turn,
// and username for whom, of whom nothing is told but a tag. The API key comes as Authorization: Bearer or, as the draft
// has it, as the parameter key.
func (s *web) getTURN(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	secret := query.Get("key")
	if scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		secret = strings.TrimSpace(value)
	}
	key, err := s.keys.Authenticate(secret)
	if err != nil {
		writeError(w, &apiError{Status: http.StatusUnauthorized, Code: "unauthorized", Message: "give an API key as Authorization: Bearer ID.SECRET"})
		return
	}
	if service := query.Get("service"); service != "turn" {
		writeError(w, &apiError{Status: http.StatusBadRequest, Code: "bad-service", Message: "the service is turn"})
		return
	}
	user := query.Get("username")
	if len(user) > maxTURNUser || !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl) {
		writeError(w, &apiError{Status: http.StatusBadRequest, Code: "bad-username", Message: "a username is text of at most 128 bytes"})
		return
	}
	session := auth.KeySession(key.ID)
	ice := s.ice(caller{Session: session, Owner: tokenOwner(session, user)}, clientOf(r), "")
	out := turnAnswer{TTL: ice.TTLSeconds, URIs: []string{}}
	for _, server := range ice.Servers {
		// Other people's servers have credentials of their own, for which this shape has no place.
		if out.Username == "" && server.Username != "" {
			out.Username, out.Password = server.Username, server.Credential
		}
		if server.Username != "" && server.Username == out.Username {
			out.URIs = append(out.URIs, server.URLs...)
		}
	}
	writeJSON(w, http.StatusOK, out)
}
