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
// camera otherwise. A trusted proxy speaks plain HTTP to us by choice; probes need no certificate.
func withHTTPS(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := clientOf(r)
		if c.Secure || c.Proxied || c.Addr.IsLoopback() || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		if !validHost(c.Host) {
			refuse(w, r, log, &apiError{Status: http.StatusBadRequest, Code: "bad-host", Message: "the Host header is not a host"})
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			// What the request carries has been seen on the way already; redirecting it would hide that.
			refuse(w, r, log, &apiError{Status: http.StatusForbidden, Code: "https-required", Message: "use https:// on the same port"})
			return
		}
		h := w.Header()
		h.Set("Location", "https://"+c.Host+r.URL.RequestURI())
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}
