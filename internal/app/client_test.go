package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestClientIsWhomATrustedProxyNames(t *testing.T) {
	trusted := contains([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
	type header map[string]string
	for name, c := range map[string]struct {
		remote string
		tls    bool
		header header
		want   client
	}{
		"plain":          {"198.51.100.1:1", false, nil, client{Addr: addr("198.51.100.1"), Host: "call.example:8080"}},
		"tls":            {"198.51.100.1:1", true, nil, client{Addr: addr("198.51.100.1"), Secure: true, Host: "call.example:8080"}},
		"mapped address": {"[::ffff:198.51.100.1]:1", false, nil, client{Addr: addr("198.51.100.1"), Host: "call.example:8080"}},
		"stranger's headers": {"198.51.100.1:1", false,
			header{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"},
			client{Addr: addr("198.51.100.1"), Host: "call.example:8080", Forwarded: true}},
		"proxy": {"10.0.0.1:1", false,
			header{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "call.example"},
			client{Addr: addr("203.0.113.9"), Secure: true, Host: "call.example", Forwarded: true, Proxied: true}},
		"forged entry before the proxy's": {"10.0.0.1:1", false, header{"X-Forwarded-For": "127.0.0.1, 203.0.113.9"},
			client{Addr: addr("203.0.113.9"), Host: "call.example:8080", Forwarded: true, Proxied: true}},
		"chain of proxies": {"10.0.0.1:1", false, header{"X-Forwarded-For": "198.51.100.5, 203.0.113.9, 10.9.9.9, fd00::1"},
			client{Addr: addr("203.0.113.9"), Host: "call.example:8080", Forwarded: true, Proxied: true}},
		"with ports": {"10.0.0.1:1", false, header{"X-Forwarded-For": "[2001:db8::9]:4711"},
			client{Addr: addr("2001:db8::9"), Host: "call.example:8080", Forwarded: true, Proxied: true}},
		"garbage": {"10.0.0.1:1", false, header{"X-Forwarded-For": "unknown", "X-Forwarded-Host": "a/b"},
			client{Addr: addr("10.0.0.1"), Host: "call.example:8080", Forwarded: true, Proxied: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "http://call.example:8080/", nil)
			r.RemoteAddr = c.remote
			if c.tls {
				r = r.WithContext(context.WithValue(r.Context(), secureKey{}, true))
			}
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			if got := findClient(r, trusted); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestLoginLeadsToLocalPathsOnly(t *testing.T) {
	for next, want := range map[string]string{
		"/call/tea":             "/call/tea",
		"/call/t%C3%A9?x=1":     "/call/t%C3%A9?x=1",
		"/":                     "/",
		"":                      "/",
		"call/tea":              "/",
		"//evil.example/":       "/",
		"/\\evil.example":       "/",
		"/%5cevil.example":      "/",
		"/%2fevil.example":      "/",
		"https://evil.example/": "/",
		"javascript:alert(1)":   "/",
		"/a\nSet-Cookie: x":     "/",
		"\t//evil.example":      "/",
	} {
		if got := localPath(next); got != want {
			t.Errorf("next %q leads to %q, want %q", next, got, want)
		}
	}
}

func TestOriginIsOwnAllowedOrForeign(t *testing.T) {
	known := newOrigins([]string{"Calls.example"}, func(origin string) bool { return origin == "https://app.example" })
	for _, c := range []struct {
		origin []string
		host   string
		secure bool
		want   originKind
	}{
		{nil, "call.example", true, originNone},
		{[]string{"https://call.example"}, "call.example", true, originOwn},
		{[]string{"https://call.example"}, "call.example:443", true, originOwn},
		{[]string{"https://CALL.example:8443"}, "call.example:8443", true, originOwn},
		{[]string{"http://call.example"}, "call.example:80", false, originOwn},
		{[]string{"http://call.example"}, "call.example", true, originForeign},
		{[]string{"https://call.example:8443"}, "call.example", true, originForeign},
		{[]string{"https://app.example"}, "call.example", true, originAllowed},
		{[]string{"https://app.example.evil"}, "call.example", true, originForeign},
		{[]string{"https://calls.example"}, "10.0.0.7:8080", false, originOwn},
		{[]string{"http://calls.example"}, "10.0.0.7:8080", false, originForeign},
		{[]string{"null"}, "call.example", true, originForeign},
		{[]string{""}, "call.example", true, originForeign},
		{[]string{"https://call.example", "https://evil.example"}, "call.example", true, originForeign},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		for _, o := range c.origin {
			r.Header.Add("Origin", o)
		}
		r = r.WithContext(context.WithValue(r.Context(), clientKey{}, client{Host: c.host, Secure: c.secure}))
		if got := known.kind(r); got != c.want {
			t.Errorf("origin %q for %s (TLS %v): %v, want %v", c.origin, c.host, c.secure, got, c.want)
		}
	}
}
