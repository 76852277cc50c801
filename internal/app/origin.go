package app

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
)

// origins are the web applications of others that may use the API: the values of --origin.
type origins map[string]bool

// originKind says whose page a request comes from.
type originKind int

const (
	originNone    originKind = iota // no Origin header: not a browser
	originOwn                       // a page of this server
	originAllowed                   // a page of --origin
	originForeign                   // any other
)

// kind compares the Origin header with the host that the client used.
func (o origins) kind(r *http.Request) originKind {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return originNone
	}
	origin := strings.ToLower(values[0])
	if len(values) > 1 {
		return originForeign
	}
	if o[origin] {
		return originAllowed
	}
	c := clientOf(r)
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Scheme != c.Scheme() || !strings.EqualFold(u.Host, withoutDefaultPort(c)) {
		return originForeign
	}
	return originOwn
}

// withoutDefaultPort is the client's host as an origin writes it (RFC 6454 section 6.2).
func withoutDefaultPort(c client) string {
	if c.Secure {
		return strings.TrimSuffix(c.Host, ":443")
	}
	return strings.TrimSuffix(c.Host, ":80")
}

// withCORS lets pages of allowed origins read the answers. Credentials stay out: such pages use a room token, which
// they send themselves.
func (o origins) withCORS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if o.kind(r) != originAllowed {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		h.Set("Access-Control-Expose-Headers", "Retry-After")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// withCrossOriginProtection refuses what changes something and comes from a page of another origin.
func withCrossOriginProtection(log *slog.Logger, next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, log, &apiError{Status: http.StatusForbidden, Code: "cross-origin", Message: "the request comes from a page of another origin"})
	}))
	return protection.Handler(next)
}
