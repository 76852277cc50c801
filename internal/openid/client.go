package openid

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Bounds of what a provider may answer.
const (
	requestTimeout = 10 * time.Second
	finishTimeout  = 25 * time.Second // of all requests of one login
	maxAnswer      = 1 << 20          // bytes of a body
	maxHeader      = 64 << 10         // bytes of the header
	maxRedirects   = 3
	maxMessage     = 300 // bytes of an error of the provider that are repeated
)

var (
	errUnsafe = errors.New("the address is not https://")
	errLong   = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
)

// client asks providers. Logins are rare, so no connection is kept.
func client(allowLoopback bool) *http.Client {
	base := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: requestTimeout}).DialContext,
		TLSHandshakeTimeout:    requestTimeout,
		ResponseHeaderTimeout:  requestTimeout,
		MaxResponseHeaderBytes: maxHeader,
		DisableKeepAlives:      true,
		ForceAttemptHTTP2:      true,
	}
	return &http.Client{
		Timeout:   requestTimeout,
		Transport: bounded{base: base, allowLoopback: allowLoopback},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			return nil
		},
	}
}

// bounded refuses addresses that anybody could answer for, and bodies that do not end.
type bounded struct {
	base          http.RoundTripper
	allowLoopback bool
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if !safeURL(r.URL, b.allowLoopback) {
		return nil, errUnsafe
	}
	resp, err := b.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &shortBody{ReadCloser: resp.Body, left: maxAnswer}
	return resp, nil
}

// shortBody is a body that fails, rather than ends, where it is too long.
type shortBody struct {
	io.ReadCloser
	left int
}

func (b *shortBody) Read(p []byte) (int, error) {
	if len(p) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errLong
	}
	return n, err
}

// safeURL says whether nobody between here and there can answer for an address.
func safeURL(u *url.URL, allowLoopback bool) bool {
	if u.Host == "" || u.User != nil {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && allowLoopback && loopbackHost(u.Hostname())
}

func loopbackURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && loopbackHost(u.Hostname())
}

func loopbackHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}

// clip makes an error fit for a log: what a provider says may be as long as its answer.
func clip(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}
