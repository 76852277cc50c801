package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func find(t *testing.T, cfg Config) *Router {
	t.Helper()
	r, err := Find(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRouterForwardsRenewsAndForgets(t *testing.T) {
	for version, kind := range map[int]Kind{1: IGD1, 2: IGD2} {
		t.Run(string(kind), func(t *testing.T) {
			f := newIGD(t)
			f.set(func() { f.version = version })
			r := find(t, f.config())
			if r.Kind() != kind || r.Name() != "Home box" || r.Gateway() != f.addr || r.Local() != f.addr {
				t.Errorf("found %s %q at %s from %s", r.Kind(), r.Name(), r.Gateway(), r.Local())
			}
			if wan, err := r.External(t.Context()); err != nil || wan != netip.MustParseAddr("203.0.113.7") {
				t.Errorf("outside it is %s, %v", wan, err)
			}
			port := Port{"tcp", 8080}
			for range 2 { // the second is the renewal, and also the start after a crash
				m, err := r.Map(t.Context(), port, time.Hour, now)
				if err != nil || m.Port != port || !m.Until.Equal(now.Add(time.Hour)) {
					t.Fatalf("mapped %+v, %v", m, err)
				}
			}
			f.mu.Lock()
			if got := f.table["8080 TCP"]; got != (entry{f.addr.String(), 8080, 3600}) || len(f.table) != 1 {
				t.Errorf("the router's table is %+v", f.table)
			}
			f.mu.Unlock()
			if r.Lost(t.Context(), port) {
				t.Error("lost what is there")
			}
			if err := r.Unmap(t.Context(), port); err != nil {
				t.Fatal(err)
			}
			if err := r.Unmap(t.Context(), port); err != nil {
				t.Errorf("a second time: %v", err)
			}
			if !r.Lost(t.Context(), port) {
				t.Error("not lost")
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.table) != 0 {
				t.Errorf("left behind: %+v", f.table)
			}
		})
	}
}

func TestPortOfAnotherHostIsNeitherTakenNorEnded(t *testing.T) {
	f := newIGD(t)
	theirs := entry{"192.168.1.99", 8080, 0}
	f.set(func() { f.table["8080 UDP"] = theirs })
	r := find(t, f.config())
	_, err := r.Map(t.Context(), Port{"udp", 8080}, time.Hour, now)
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "192.168.1.99 (game)") {
		t.Errorf("got %v", err)
	}
	if err := r.Unmap(t.Context(), Port{"udp", 8080}); err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table["8080 UDP"] != theirs {
		t.Errorf("their mapping is %+v now", f.table["8080 UDP"])
	}
}

func TestRouterSaysWhyNot(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*fakeIGD)
		want error
	}{
		"not authorized":     {func(f *fakeIGD) { f.refuses = 606 }, ErrRefused},
		"conflict":           {func(f *fakeIGD) { f.refuses = 718 }, ErrConflict},
		"no room":            {func(f *fakeIGD) { f.room = 0 }, ErrFull},
		"some other error":   {func(f *fakeIGD) { f.refuses = 501 }, ErrRefused},
		"permanent only":     {func(f *fakeIGD) { f.permanent = true }, nil},
		"our port elsewhere": {func(f *fakeIGD) { f.table["8080 TCP"] = entry{f.addr.String(), 9090, 0} }, ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			f := newIGD(t)
			f.set(func() { c.set(f) })
			m, err := find(t, f.config()).Map(t.Context(), Port{"tcp", 8080}, time.Hour, now)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want == nil && (err != nil || !m.Until.IsZero()) {
				t.Errorf("got %+v, %v, want a mapping without end", m, err)
			}
		})
	}
}

func TestRouterThatIsNotConnectedHasNoAddress(t *testing.T) {
	for _, external := range []string{"", "0.0.0.0", "soon", "2001:db8::1"} {
		f := newIGD(t)
		f.set(func() { f.external = external })
		// A router behind a provider's NAT says that it has none.
		none := external == "" || external == "0.0.0.0"
		if wan, err := find(t, f.config()).External(t.Context()); err == nil || errors.Is(err, ErrNoAddress) != none {
			t.Errorf("%q: got %s, %v", external, wan, err)
		}
	}
}

// Each of these must end soon, with an error that says what is wrong and is short.
func TestHostileRouterIsRefused(t *testing.T) {
	big := strings.Repeat("<x>", 1<<20)
	for name, c := range map[string]struct {
		set  func(*testing.T, *fakeIGD)
		want string
	}{
		"names a description at another host": {func(_ *testing.T, f *fakeIGD) { f.location = "http://192.0.2.1/desc.xml" }, "another host"},
		"names a description by a host name":  {func(_ *testing.T, f *fakeIGD) { f.location = "http://localhost/desc.xml" }, "another host"},
		"names a file":                        {func(_ *testing.T, f *fakeIGD) { f.location = "file:///etc/passwd" }, "not the address"},
		"names nothing":                       {func(_ *testing.T, f *fakeIGD) { f.location = "" }, "not the address"},
		"redirects": {func(_ *testing.T, f *fakeIGD) {
			f.describe = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
			}
		}, "302"},
		"endless description": {func(_ *testing.T, f *fakeIGD) {
			f.describe = func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `<root xmlns="urn:schemas-upnp-org:device-1-0"><device>`+big)
			}
		}, "description"},
		"control at another host": {func(_ *testing.T, f *fakeIGD) {
			f.describe = func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>x:2</deviceType><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>http://192.0.2.1/c</controlURL></service></serviceList></device></root>`)
			}
		}, "another host"},
		"base at another host": {func(_ *testing.T, f *fakeIGD) {
			f.describe = func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `<root xmlns="urn:schemas-upnp-org:device-1-0"><URLBase>http://192.0.2.1/</URLBase><device></device></root>`)
			}
		}, "another host"},
		"no service": {func(_ *testing.T, f *fakeIGD) {
			f.describe = func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `<root xmlns="urn:schemas-upnp-org:device-1-0"><device></device></root>`)
			}
		}, "no service"},
		"slow": {func(t *testing.T, f *fakeIGD) {
			f.describe = func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
				case <-t.Context().Done():
				}
			}
		}, "description"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newIGD(t)
			f.set(func() { c.set(t, f) })
			_, err := Find(t.Context(), f.config())
			if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 1000 {
				t.Errorf("got %.2000v", err)
			}
		})
	}
}

func TestHostileAnswersToCallsAreBounded(t *testing.T) {
	f := newIGD(t)
	r := find(t, f.config())
	for name, control := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><a>`))
			_, _ = w.Write(bytes.Repeat([]byte("x"), 4<<20))
		},
		"nested": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>` + strings.Repeat("<a>", 1<<20)))
		},
		"no XML":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "\x00\xff<>&") },
		"nothing": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"a long error": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><detail><UPnPError><errorCode>501</errorCode><errorDescription>%s</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, strings.Repeat("\x1b[31mno ", 1000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.set(func() { f.control = control })
			if _, err := r.External(t.Context()); err == nil || len(err.Error()) > 400 {
				t.Errorf("address: %.900v", err)
			}
			if _, err := r.Map(t.Context(), Port{"tcp", 80}, time.Hour, now); err == nil || len(err.Error()) > 400 || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("mapping: %.900v", err)
			}
			_ = r.Unmap(t.Context(), Port{"tcp", 80})
			r.Lost(t.Context(), Port{"tcp", 80})
		})
	}
}

// Another host of the network answers the search: first, and with a description that would do.
func TestAnswerOfAnotherHostIsNotListenedTo(t *testing.T) {
	gateway, stranger := newIGD(t), newIGD(t)
	cfg := gateway.config()
	cfg.search = netip.AddrPortFrom(stranger.addr, stranger.search)
	cfg.ssdp = 9 // the gateway itself does not answer
	if r, err := Find(t.Context(), cfg); !errors.Is(err, ErrNone) {
		t.Fatalf("found %v, %v", r, err)
	}
	stranger.mu.Lock()
	calls := len(stranger.calls)
	stranger.mu.Unlock()
	if calls > 0 {
		t.Error("the stranger was called")
	}
	cfg.ssdp = gateway.search
	if r := find(t, cfg); r.Gateway() != gateway.addr {
		t.Errorf("found %s", r.Gateway())
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	f := newIGD(t)
	f.set(func() { f.describe = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() } })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Find(ctx, f.config()); err == nil {
		t.Error("found one")
	}
}

func TestNATPMPForwardsRenewsAndForgets(t *testing.T) {
	f := newPMP(t)
	r := find(t, f.config())
	if r.Kind() != NATPMP {
		t.Fatalf("found %s", r.Kind())
	}
	if wan, err := r.External(t.Context()); err != nil || wan != netip.MustParseAddr("203.0.113.9") {
		t.Errorf("outside it is %s, %v", wan, err)
	}
	port := Port{"udp", 8080}
	for range 2 {
		if m, err := r.Map(t.Context(), port, time.Hour, now); err != nil || !m.Until.Equal(now.Add(time.Hour)) {
			t.Fatalf("mapped %+v, %v", m, err)
		}
	}
	f.set(func() { f.epoch += 60 })
	if r.Lost(t.Context(), port) {
		t.Error("lost what is there")
	}
	f.set(func() { f.epoch = 1 }) // it was restarted
	if !r.Lost(t.Context(), port) {
		t.Error("a restart is not noticed")
	}
	if err := r.Unmap(t.Context(), port); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.table) != 0 {
		t.Errorf("left behind: %v", f.table)
	}
}

func TestNATPMPPortThatIsTakenIsGivenBack(t *testing.T) {
	f := newPMP(t)
	f.set(func() { f.taken[8080] = true })
	r := find(t, f.config())
	if _, err := r.Map(t.Context(), Port{"tcp", 8080}, time.Hour, now); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "8081") {
		t.Errorf("got %v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.table) != 0 {
		t.Errorf("left behind: %v", f.table)
	}
}

func TestNATPMPSaysWhyNot(t *testing.T) {
	f := newPMP(t)
	r := find(t, f.config())
	for code, want := range map[uint16]error{1: ErrRefused, 2: ErrRefused, 3: ErrNoAddress, 4: ErrFull, 5: ErrRefused} {
		f.set(func() { f.code = code })
		if _, err := r.Map(t.Context(), Port{"tcp", 8080}, time.Hour, now); !errors.Is(err, want) {
			t.Errorf("code %d: %v, want %v", code, err, want)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	addr := address()
	_, err := Find(t.Context(), Config{Gateway: addr, Local: addr, ssdp: 9, search: netip.AddrPortFrom(addr, 9), wait: time.Millisecond})
	if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), addr.String()) {
		t.Errorf("got %v", err)
	}
}

func TestDefaultRouteOfTheLeastMetric(t *testing.T) {
	const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0101A8C0	0003	0	0	600	00000000	0	0	0
eth0	00000000	FE01A8C0	0003	0	0	100	00000000	0	0	0
eth1	00000000	FD01A8C0	0001	0	0	1	00000000	0	0	0
eth0	0001A8C0	00000000	0001	0	0	100	00FFFFFF	0	0	0
`
	for text, want := range map[string]string{table: "192.168.1.254", "": "invalid IP", "a b\nc 00000000 zz 0003 0 0 0 00000000": "invalid IP"} {
		if got := parseRoutes(text); got.String() != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzSearchAnswer(f *testing.F) {
	gateway := netip.MustParseAddr("192.168.1.1")
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/desc.xml\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.2/\r\nContent-Length: 99999999\r\n\r\n"))
	f.Add([]byte("NOTIFY * HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		u, err := parseAnswer(datagram, gateway)
		if err == nil && u.Hostname() != gateway.String() {
			t.Errorf("leads to %s", u)
		}
	})
}
