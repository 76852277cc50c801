package app

import (
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"callbox/auth"
	"callbox/internal/control"
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

// mintWith makes a room token with a given API key.
func (r *running) mintWith(key control.NewKey, room, subject string) string {
	r.t.Helper()
	now := time.Now()
	token, err := auth.MintWith(key.ID, key.Secret, auth.RoomToken{Subject: subject, Room: room, Expires: now.Add(time.Hour)}, now)
	if err != nil {
		r.t.Fatal(err)
	}
	return token
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what other goroutines bring about.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("not within 20 seconds")
		case <-tick.C:
		}
	}
}
