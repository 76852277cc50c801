package app

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"

	"github.com/pires/go-proxyproto"
)

// bytesConn is a connection on which some bytes have arrived.
type bytesConn struct {
	net.Conn
	r io.Reader
}

func (c bytesConn) Read(b []byte) (int, error) { return c.r.Read(b) }

func FuzzProxyHeader(f *testing.F) {
	for _, source := range []string{"198.51.100.7:1", "[2001:db8::7]:1"} {
		src := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))
		b, err := proxyproto.HeaderProxyFromAddrs(2, src, src).Format()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(b, 0x16))
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("PROXY TCP4 198.51.100.7 198.51.100.8 1 2\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:1"))
		c := &portConn{Conn: bytesConn{r: bytes.NewReader(data)}, remote: before}
		if c.readProxyHeader() != nil {
			if c.remote != net.Addr(before) {
				t.Error("a header that was refused changed the address")
			}
			return
		}
		if c.remote == nil || !addrOf(c.remote).IsValid() {
			t.Errorf("accepted, but the address is %v", c.remote)
		}
		rest, err := io.ReadAll(c)
		if err != nil || !bytes.HasSuffix(data, rest) || len(data)-len(rest) < proxyFixed || len(data)-len(rest) > proxyMax {
			t.Errorf("took %d of %d bytes: %v", len(data)-len(rest), len(data), err)
		}
	})
}

func FuzzLocalPath(f *testing.F) {
	for _, next := range []string{"/call/tea", "//evil.example", "/\\evil.example", "/%5cevil", "https:evil.example", "/..//evil.example", "/?next=//x", "/#//x"} {
		f.Add(next)
	}
	base, err := url.Parse("https://call.example/login")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, next string) {
		u, err := base.Parse(localPath(next))
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme {
			t.Errorf("%q leads to %v (%v)", next, u, err)
		}
	})
}

func FuzzForwardedHeaders(f *testing.F) {
	f.Add("198.51.100.1, 10.0.0.1", "https", "call.example")
	f.Add("[::1]:5", "http,https", "a:b:c")
	f.Fuzz(func(t *testing.T, list, proto, host string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header.Set("X-Forwarded-For", list)
		r.Header.Set("X-Forwarded-Proto", proto)
		r.Header.Set("X-Forwarded-Host", host)
		c := findClient(r, contains([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}))
		if !c.Addr.IsValid() {
			t.Error("no address")
		}
		if c.Host != r.Host {
			if u, err := url.Parse("https://" + c.Host + "/x"); err != nil || u.Host != c.Host || u.Path != "/x" || u.User != nil {
				t.Errorf("host %q is more than a host", c.Host)
			}
		}
	})
}
