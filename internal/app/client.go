package app

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
)

// client is who sent a request, and the name under which the request reached us.
type client struct {
	Addr   netip.Addr // of the client itself; of the connection where no trusted proxy says more
	Secure bool       // it came by TLS, to us or to a trusted proxy
	Host   string     // host[:port] that the client used
	// Forwarded: a proxy, trusted or not, stands between. Such a request is not from this machine itself, whatever its
	// connection says.
	Forwarded bool
	Proxied   bool // the connection is a trusted proxy's
}

// Loopback tells whether the request comes from this machine, and neither through a proxy on it nor from a foreign page
// in a browser on it, whose name was made to lead here (DNS rebinding).
func (c client) Loopback() bool {
	name := c.Hostname()
	_, err := netip.ParseAddr(name)
	return c.Addr.IsLoopback() && !c.Forwarded && (err == nil || strings.EqualFold(name, "localhost"))
}

// Scheme is the URL scheme that the client used.
func (c client) Scheme() string {
	if c.Secure {
		return "https"
	}
	return "http"
}

// Hostname is Host without its port and brackets.
func (c client) Hostname() string { return hostname(c.Host) }

func hostname(hostport string) string { return (&url.URL{Host: hostport}).Hostname() }

type clientKey struct{}

// clientOf is what withClient found out.
func clientOf(r *http.Request) client {
	c, _ := r.Context().Value(clientKey{}).(client)
	return c
}

// withClient finds the client of each request. Headers that say more than the connection count only from a trusted proxy.
// A proxy on this machine that is not trusted is most likely forgotten, and warned of once.
func withClient(trusted func(netip.Addr) bool, log *slog.Logger, next http.Handler) http.Handler {
	var once sync.Once
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := findClient(r, trusted)
		if c.Forwarded && !c.Proxied && c.Addr.IsLoopback() {
			once.Do(func() {
				log.Warn("requests come through a proxy on this machine that is not trusted, and so all seem to come from this machine; name it, as in --trusted-proxy 127.0.0.0/8 --trusted-proxy ::1")
			})
		}
		r2 := r.WithContext(context.WithValue(r.Context(), clientKey{}, c))
		// The check against cross-origin requests and the WebSocket's compare Origin with Host: with what the client used.
		r2.Host = c.Host
		next.ServeHTTP(w, r2)
	})
}

func findClient(r *http.Request, trusted func(netip.Addr) bool) client {
	secure, _ := r.Context().Value(secureKey{}).(bool)
	c := client{Secure: secure, Host: r.Host}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.Addr = ap.Addr().Unmap()
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			c.Forwarded = true
		}
	}
	if !trusted(c.Addr) {
		return c
	}
	c.Proxied = true
	c.Addr = forwardedFor(r.Header.Values("X-Forwarded-For"), c.Addr, trusted)
	// A chain of proxies may list several values; the first is what the client used.
	switch strings.ToLower(firstOf(r.Header.Get("X-Forwarded-Proto"))) {
	case "https", "wss":
		c.Secure = true
	case "http", "ws":
		c.Secure = false
	}
	if host := firstOf(r.Header.Get("X-Forwarded-Host")); validHost(host) {
		c.Host = host
	}
	return c
}

// forwardedFor walks the list from its end, where our own proxy wrote, to the first address that is not a trusted proxy.
func forwardedFor(values []string, addr netip.Addr, trusted func(netip.Addr) bool) netip.Addr {
	list := strings.Split(strings.Join(values, ","), ",")
	for i := len(list) - 1; i >= 0; i-- {
		next, ok := parseForwarded(strings.TrimSpace(list[i]))
		if !ok {
			return addr
		}
		if addr = next; !trusted(addr) {
			return addr
		}
	}
	return addr
}

func parseForwarded(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap().WithZone(""), err == nil
}

func firstOf(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(first)
}

// validHost accepts what can stand as host[:port] in a URL.
func validHost(s string) bool {
	if s == "" || len(s) > 255 || strings.ContainsAny(s, "/\\@?#%\" <>") {
		return false
	}
	u, err := url.Parse("http://" + s + "/")
	return err == nil && u.Host == s && u.Hostname() != ""
}

// contains makes a test for membership of a list of networks.
func contains(list []netip.Prefix) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		a = a.Unmap().WithZone("")
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
}
