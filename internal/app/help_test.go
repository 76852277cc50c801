package app

import (
	"net/http"
	"net/http/httptest"
	"time"

	"callbox/auth"
)

// record asks a handler as if the request came from that address.
func record(h http.Handler, method, remote, path string, header ...string) *http.Response {
	req := httptest.NewRequest(method, "http://192.168.1.7:8080"+path, nil)
	req.RemoteAddr = remote
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Result()
}

// mint makes a room token with an API key of its own.
func (r *running) mint(room, subject string, ttl time.Duration) string {
	r.t.Helper()
	now := time.Now()
	id, _, err := r.web.keys.Add(r.t.Context(), "test", now)
	if err != nil {
		r.t.Fatal(err)
	}
	token, err := r.web.keys.Mint(id, auth.RoomToken{Subject: subject, Room: room, Expires: now.Add(ttl)}, now)
	if err != nil {
		r.t.Fatal(err)
	}
	return token
}
