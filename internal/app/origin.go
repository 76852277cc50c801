package app

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
)

// origins are the pages that requests may come from, besides those of the host that the client used.
type origins struct {
	allowed func(origin string) bool // other people's applications: the values of --origin
	names   map[string]bool          // of this server: the values of --name, in lower case
}

func newOrigins(names []string, allowed func(origin string) bool) origins {
	o := origins{allowed: allowed, names: map[string]bool{}}
	for _, name := range names {
		o.names[strings.ToLower(name)] = true
	}
	return o
}

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
	if o.allowed(origin) {
		return originAllowed
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return originForeign
	}
	// A proxy in front may have put another Host in the place of the one that the browser used.
	if u.Scheme == "https" && o.names[u.Hostname()] {
		return originOwn
	}
	if c := clientOf(r); u.Scheme == c.Scheme() && strings.EqualFold(u.Host, withoutDefaultPort(c)) {
		return originOwn
	}
	return originForeign
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

// withProtection refuses what changes something and comes from a page of another origin.
func (o origins) withProtection(log *slog.Logger, next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	for name := range o.names {
		host := name
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		if err := protection.AddTrustedOrigin("https://" + host); err != nil {
			log.Warn("a name of this server cannot be an origin", logName, name, logError, err)
		}
	}
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, log, &apiError{Status: http.StatusForbidden, Code: "cross-origin", Message: "the request comes from a page of another origin"})
	}))
	return protection.Handler(next)
}
