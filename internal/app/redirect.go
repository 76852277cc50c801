package app

import (
	"log/slog"
	"net/http"
	"strings"
)

// openRedirect binds --http-listen. A server without it works, so what stands in the way is only said.
func (a *App) openRedirect(undo *closers) {
	if !a.cfg.HTTPListen.IsValid() {
		return
	}
	l, err := listenTCP(a.cfg.HTTPListen, "http-listen")
	if err != nil {
		a.log.Warn("people who type no https:// are not sent on, and certificates are got by the TLS port alone", logError, err)
		return
	}
	undo.add(l.Close)
	a.redirect = newPort(portConfig{
		Listener: l, HTTP: true, Trusted: contains(a.cfg.TrustedProxy), PerAddress: a.cfg.ConnectionsPerAddress, Log: a.log,
	})
	a.extra = append(a.extra, a.redirect)
}

// redirectHandler answers --http-listen: certificate authorities that look for their challenge, and people, whom it sends
// to https:// on the one port.
func (s *web) redirectHandler(port uint16) http.Handler {
	h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := clientOf(r).Hostname()
		if !validHost(clientOf(r).Host) {
			refuse(w, r, s.log, errBadHost())
			return
		}
		toHTTPS(w, r, s.log, strings.TrimPrefix(webURL("https", host, port), "https://"))
	}))
	h = s.withChallenge(withRecovery(s.log, withHeaders(h)))
	return withClient(s.trusted, s.log, http.MaxBytesHandler(h, maxBody))
}

// challengePath is where authorities look for an HTTP challenge (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// withChallenge answers certificate authorities, which come by plain HTTP.
func (s *web) withChallenge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.challenge != nil && strings.HasPrefix(r.URL.Path, challengePath) && s.challenge(w, r, clientOf(r).Hostname()) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

func errBadHost() *apiError {
	return &apiError{Status: http.StatusBadRequest, Code: "bad-host", Message: "the Host header is not a host"}
}

// toHTTPS sends a request on to https:// at a host[:port].
func toHTTPS(w http.ResponseWriter, r *http.Request, log *slog.Logger, host string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		// What the request carries has been seen on the way already; redirecting it would hide that.
		refuse(w, r, log, &apiError{Status: http.StatusForbidden, Code: "https-required", Message: "use https://" + host})
		return
	}
	h := w.Header()
	h.Set("Location", "https://"+host+r.URL.RequestURI())
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusTemporaryRedirect)
}
