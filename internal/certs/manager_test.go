package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"callbox/bus"
	"callbox/internal/testkit"
)

// face answers TLS and HTTP on one port each for a Manager, as a server does.
type face struct {
	http, tls net.Listener
	manager   *Manager // before the first connection
	wg        sync.WaitGroup
}

func newFace(t *testing.T) *face {
	t.Helper()
	f := &face{}
	var err [2]error
	f.http, err[0] = net.Listen("tcp", "127.0.0.1:0")
	f.tls, err[1] = net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err[:]...); err != nil {
		t.Fatal(err)
	}
	return f
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func (f *face) serve(t *testing.T, m *Manager) {
	f.manager = m
	plain := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if !m.AnswerHTTP(w, r, host) {
			http.NotFound(w, r)
		}
	})}
	secure := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		TLSConfig: &tls.Config{NextProtos: []string{"http/1.1", ChallengeProtocol}, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if IsChallenge(hello) {
				return m.Challenge(hello)
			}
			if cert := m.Get(hello); cert != nil {
				return cert, nil
			}
			return nil, errors.New("none yet")
		}},
	}
	f.wg.Go(func() { _ = plain.Serve(f.http) })
	f.wg.Go(func() { _ = secure.ServeTLS(f.tls, "", "") })
	t.Cleanup(func() { _, _ = plain.Close(), secure.Close(); f.wg.Wait() })
}

// closed is a port at which nobody answers.
func closed(t *testing.T) int { return testkit.Port(t, "127.0.0.1") }

// run keeps certificates until the test ends.
func run(t *testing.T, f *face, ca *testkit.Authority, records bus.Records, change func(*Config)) *Manager {
	t.Helper()
	text, err := os.ReadFile(ca.Root)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	cfg := Config{
		// certmagic keeps the challenges of a whole process in one place: each test has a name of its own.
		Names: []string{"call.test"}, CA: ca.URL, Roots: roots, Records: records,
		Listen: netip.MustParseAddrPort(f.tls.Addr().String()),
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("203.0.113.9")}, nil
		},
		Addrs: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
		Log:   slog.New(slog.NewTextHandler(t.Output(), nil)),
		Check: time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	m := Open(t.Context(), cfg)
	f.serve(t, m)
	if told, ok := records.(*telling); ok {
		told.set(m.Changed)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// patience is for an order on a machine under load.
const patience = 45 * time.Second

func has(t *testing.T, m *Manager, name string) *tls.Certificate {
	t.Helper()
	var cert *tls.Certificate
	testkit.Eventually(t, patience, "a certificate for "+name, func() error {
		if cert = m.Certificate(name); cert == nil {
			return fmt.Errorf("none; state %+v", m.State())
		}
		return nil
	})
	return cert
}

// verified shakes hands with a server as the world does.
func verified(t *testing.T, address, name string, roots *x509.CertPool) {
	t.Helper()
	c, err := (&tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: roots}}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatalf("handshake with %s as %s: %v", address, name, err)
	}
	_ = c.Close()
}

func TestNameIsValidatedByHTTP(t *testing.T) {
	t.Parallel()
	f := newFace(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: portOf(f.http), TLSPort: closed(t)})
	records, _ := onMemory(t)
	m := run(t, f, ca, records, func(c *Config) { c.Names, c.Only = []string{"http.test"}, acme.ChallengeTypeHTTP01 })
	has(t, m, "HTTP.test.")
	verified(t, f.tls.Addr().String(), "http.test", ca.Roots())
	if s := m.State(); s.Err != nil || s.Source != SourceACME || len(s.Missing) != 0 || !strings.Contains(s.Issuer, "Pebble") || time.Until(s.NotAfter) < 5*24*time.Hour {
		t.Errorf("state %+v", s)
	}

	// The next start needs no order.
	before := ca.Orders()
	again := Open(t.Context(), m.cfg)
	if again.Certificate("http.test") == nil || ca.Orders() != before {
		t.Errorf("after a restart: %v, %d orders after %d", again.State(), ca.Orders(), before)
	}
}

func TestNamesAndAddressAreValidatedByTLS(t *testing.T) {
	t.Parallel()
	f := newFace(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: closed(t), TLSPort: portOf(f.tls)})
	records, _ := onMemory(t)
	m := run(t, f, ca, records, func(c *Config) { c.Names, c.Only = []string{"tls.test", "127.0.0.1"}, acme.ChallengeTypeTLSALPN01 })
	address := has(t, m, "127.0.0.1")
	has(t, m, "tls.test")
	if life := address.Leaf.NotAfter.Sub(address.Leaf.NotBefore); life > 7*24*time.Hour {
		t.Errorf("the address got a certificate of %v: not the short-lived profile", life)
	}
	verified(t, f.tls.Addr().String(), "tls.test", ca.Roots())
	verified(t, f.tls.Addr().String(), "127.0.0.1", ca.Roots()) // sends no name
}

func TestRefusalIsExplained(t *testing.T) {
	t.Parallel()
	f := newFace(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: closed(t), TLSPort: closed(t), Blocked: []string{"blocked.test"}})
	records, _ := onMemory(t)
	m := run(t, f, ca, records, func(c *Config) { c.Names, c.Only = []string{"refused.test", "blocked.test"}, acme.ChallengeTypeHTTP01 })
	var s State
	testkit.Eventually(t, patience, "both refusals", func() error {
		if s = m.State(); s.Err == nil || strings.Count(s.Err.Error(), "\n") != 1 {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
	for _, want := range []string{
		"ACME refused refused.test: ", "(connection); DNS points to 203.0.113.9 but this host is 192.0.2.1",
		"ACME refused blocked.test: ", "(rejectedIdentifier); this authority does not sign for blocked.test",
	} {
		if !strings.Contains(s.Err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, s.Err)
		}
	}
	if !errors.Is(s.Err, ErrRefused) || len(s.Missing) != 2 || time.Until(s.Retry) > time.Minute || time.Until(s.Retry) < 0 {
		t.Errorf("state %+v", s)
	}
	before := ca.Orders()
	m.Nudge()
	testkit.Eventually(t, patience, "another order, which counts as the second", func() error {
		if wait := time.Until(m.State().Retry); ca.Orders() == before || wait <= time.Minute {
			return fmt.Errorf("the next is in %v", wait)
		}
		return nil
	})
	before = ca.Orders()
	m.Retry()
	testkit.Eventually(t, patience, "another order on request", func() error {
		if ca.Orders() == before {
			return errors.New("none")
		}
		return nil
	})
}

func TestUnreachableAuthorityIsExplained(t *testing.T) {
	t.Parallel()
	f := newFace(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: closed(t), TLSPort: closed(t)})
	for what, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"nobody there": {func(c *Config) { c.CA = fmt.Sprintf("https://127.0.0.1:%d/dir", closed(t)) }, "this host must reach https://127.0.0.1:"},
		"not trusted":  {func(c *Config) { c.Roots = x509.NewCertPool() }, "--acme-ca-root"},
	} {
		t.Run(what, func(t *testing.T) {
			records, _ := onMemory(t)
			m := run(t, newFace(t), ca, records, func(cfg *Config) { cfg.Listen = netip.MustParseAddrPort(f.tls.Addr().String()); c.change(cfg) })
			testkit.Eventually(t, patience, "the reason", func() error {
				if s := m.State(); !errors.Is(s.Err, ErrUnreachable) || !strings.Contains(s.Err.Error(), c.want) {
					return fmt.Errorf("state %+v", s)
				}
				return nil
			})
		})
	}
}

func TestCertificateIsRenewedBeforeItsEnd(t *testing.T) {
	t.Parallel()
	f := newFace(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: portOf(f.http), TLSPort: portOf(f.tls), Life: 15 * time.Second, ShortLife: 15 * time.Second})
	records, _ := onMemory(t)
	m := run(t, f, ca, records, func(c *Config) { c.Names = []string{"renewed.test"} })
	first := has(t, m, "renewed.test")
	testkit.Eventually(t, patience, "a renewed certificate", func() error {
		if now := m.Certificate("renewed.test"); !now.Leaf.NotAfter.After(first.Leaf.NotAfter) {
			return fmt.Errorf("still the first; state %+v", m.State())
		}
		return nil
	})
}

func TestTwoNodesPlaceOneOrderAndServeOneCertificate(t *testing.T) {
	t.Parallel()
	busA, busB := onMemory(t)
	a, b := newFace(t), newFace(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: portOf(a.http), TLSPort: portOf(a.tls)})
	named := func(c *Config) { c.Names = []string{"shared.test"} }
	managers := []*Manager{run(t, a, ca, busA, named), run(t, b, ca, busB, named)}
	one, two := has(t, managers[0], "shared.test"), has(t, managers[1], "shared.test")
	if !one.Leaf.Equal(two.Leaf) || ca.Signed() != 1 {
		t.Errorf("%d certificates were signed", ca.Signed())
	}
	for _, f := range []*face{a, b} {
		verified(t, f.tls.Addr().String(), "shared.test", ca.Roots())
	}
}

func TestStrangersNamesAreNotLookedUp(t *testing.T) {
	t.Parallel()
	f := newFace(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: portOf(f.http), TLSPort: portOf(f.tls)})
	records, _ := onMemory(t)
	m := run(t, f, ca, records, func(c *Config) { c.Names = []string{"ours.test", "192.0.2.7", "2001:db8::1"} })
	has(t, m, "ours.test")
	for name, want := range map[string]bool{
		"ours.test": true, "OURS.test": true, "other.test": false, "": false,
		"7.2.0.192.in-addr.arpa": true, "8.2.0.192.in-addr.arpa": false,
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": true,
	} {
		if got := m.asked(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	_, err := m.Challenge(&tls.ClientHelloInfo{ServerName: "other.test", SupportedProtos: []string{ChallengeProtocol}})
	if !errors.Is(err, ErrNoChallenge) {
		t.Errorf("got %v", err)
	}
}

func TestAuthorityMayWantACertificateReplacedEarly(t *testing.T) {
	t.Parallel()
	busA, busB := onMemory(t)
	a, b := newFace(t), newFace(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: portOf(a.http), TLSPort: portOf(a.tls)})
	asking := func(c *Config) { c.Names, c.Ask, c.Check = []string{"early.test"}, 2*time.Second, time.Second }
	managers := []*Manager{run(t, a, ca, busA, asking), run(t, b, ca, busB, asking)}
	first := has(t, managers[0], "early.test")
	ca.WantRenewal(first.Leaf)
	testkit.Eventually(t, patience, "both have another certificate, the same", func() error {
		one, two := managers[0].Certificate("early.test"), managers[1].Certificate("early.test")
		if one == nil || two == nil || one.Leaf.Equal(first.Leaf) || !one.Leaf.Equal(two.Leaf) {
			return fmt.Errorf("%d signed", ca.Signed())
		}
		return nil
	})
	if ca.Signed() != 2 {
		t.Errorf("%d certificates were signed", ca.Signed())
	}
}

func TestFailureOfOneNodeSparesTheOthersTheSame(t *testing.T) {
	t.Parallel()
	busA, busB := onMemory(t)
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: closed(t), TLSPort: closed(t)})
	named := func(c *Config) { c.Names, c.Only = []string{"failed.test"}, acme.ChallengeTypeHTTP01 }
	failed := func(m *Manager, text string) {
		t.Helper()
		testkit.Eventually(t, patience, "the failure is known", func() error {
			if s := m.State(); s.Err == nil || !strings.Contains(s.Err.Error(), text) || s.Retry.IsZero() {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	failed(run(t, newFace(t), ca, busA, named), "ACME refused failed.test")
	orders := ca.Orders()
	second := run(t, newFace(t), ca, busB, named)
	failed(second, "seen by another node")
	if ca.Orders() != orders {
		t.Errorf("%d orders after %d", ca.Orders(), orders)
	}
	second.Retry()
	testkit.Eventually(t, patience, "an order on request", func() error {
		if ca.Orders() == orders {
			return errors.New("none")
		}
		return nil
	})
}

func TestPausesGrowAndEnd(t *testing.T) {
	last := time.Duration(0)
	for failed := range 20 {
		p := pause(failed)
		if p < last || p < time.Minute || p > 6*time.Hour {
			t.Errorf("after %d failures: %v after %v", failed, p, last)
		}
		last = p
	}
}
