package app

import (
	"log/slog"
	"net/http"
)

// withHeaders sets the headers that every answer has. A handler may replace them.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		// Not no-referrer: with it browsers send "Origin: null" on our own forms.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(self), microphone=(self), display-capture=(self), geolocation=()")
		next.ServeHTTP(w, r)
	})
}

// withHTTPS sends people who come by plain HTTP from another host to https:// on the same port: browsers give a page no
// camera otherwise. A trusted proxy speaks plain HTTP to us by choice; probes need no certificate, and who is to trust this
// server's authority must be able to get it first.
func withHTTPS(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := clientOf(r)
		if c.Secure || c.Proxied || c.Addr.IsLoopback() || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" || isAuthorityPath(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		if !validHost(c.Host) {
			refuse(w, r, log, errBadHost())
			return
		}
		toHTTPS(w, r, log, c.Host)
	})
}
