package certs

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"callbox/bus"
)

// DefaultCA is the directory of Let's Encrypt.
const DefaultCA = certmagic.LetsEncryptProductionCA

// ChallengeProtocol is the ALPN name by which an authority looks for its challenge (RFC 8737 section 3). Who serves TLS
// lists it, and closes a connection that has agreed on it.
const ChallengeProtocol = "acme-tls/1"

const (
	// checkEvery is how often a certificate that needs nothing is looked at.
	checkEvery = 10 * time.Minute
	// loadTimeout bounds reading the stored certificates at the start.
	loadTimeout = 3 * time.Second
)

// Config says which certificates to keep, and with whose help.
type Config struct {
	Names   []string       // DNS names and IP addresses in lower case; one certificate each
	CA      string         // URL of the ACME directory; "": DefaultCA
	Roots   *x509.CertPool // who vouches for the ACME server itself; nil: the system's
	Email   string         // given to the authority; may be ""
	Records bus.Records
	// Listen is an address on which this process serves already, and where challenges may arrive.
	Listen netip.AddrPort
	// Lookup resolves a name and Addrs are this host's own addresses; both only explain failures.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Addrs  func() []netip.Addr
	// InUse is told, while Run runs, that a name has its first certificate; nil: nobody is. It must not block.
	InUse func()
	Log   *slog.Logger

	// For tests; zero: leaseLife, checkEvery, askEvery, and either kind of challenge.
	Lease, Check, Ask time.Duration
	Only              string // ACME name of the one kind of challenge
}

// Manager keeps certificates for names. Open reads what there is; Run orders and renews until its context ends.
type Manager struct {
	cfg       Config
	run       string // names this run, in what it leaves for other nodes
	issuerKey string
	entries   map[string]*entry // by name; not changed after Open
	challenge atomic.Pointer[certmagic.ACMEIssuer]
	challCfg  atomic.Pointer[certmagic.Config]
}

// entry is one name and its certificate.
type entry struct {
	name string
	wake chan struct{} // of one element

	current atomic.Pointer[kept]

	mu     sync.Mutex // guards what follows
	err    error
	retry  time.Time // no attempt before it
	asked  time.Time // somebody wants an attempt now: failures before this do not count
	failed int       // attempts in a row
}

// kept is a certificate and when it is to be renewed.
type kept struct {
	cert *tls.Certificate
	due  time.Time
}

// Open reads the certificates that are there already, waiting for the store no longer than a moment.
func Open(ctx context.Context, cfg Config) *Manager {
	cfg.CA = cmp.Or(cfg.CA, DefaultCA)
	cfg.Lease = cmp.Or(cfg.Lease, leaseLife)
	cfg.Check = cmp.Or(cfg.Check, checkEvery)
	cfg.Ask = cmp.Or(cfg.Ask, askEvery)
	m := &Manager{cfg: cfg, run: rand.Text(), entries: make(map[string]*entry)}
	m.issuerKey = (&certmagic.ACMEIssuer{CA: cfg.CA}).IssuerKey()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	tell := m.cfg.InUse
	m.cfg.InUse = nil
	for _, name := range cfg.Names {
		e := &entry{name: name, wake: make(chan struct{}, 1)}
		m.entries[name] = e
		if err := m.refresh(ctx, e); err != nil {
			e.err = err
		}
	}
	m.cfg.InUse = tell
	return m
}

// Run orders and renews until the context ends, and waits for what it has begun.
func (m *Manager) Run(ctx context.Context) {
	cache := m.newCache()
	defer cache.Stop()
	config := m.newConfig(cache, newStorage(m.cfg.Records, m.cfg.Lease, m.cfg.Log), nil)
	issuer := m.newIssuer(config, "")
	config.Issuers = []certmagic.Issuer{issuer}
	m.challenge.Store(issuer)
	m.challCfg.Store(config)
	var wg sync.WaitGroup
	for _, e := range m.entries {
		wg.Go(func() { m.keep(ctx, cache, e) })
	}
	wg.Wait()
}

// Changed tells that a record of BucketCertificates was changed, by whichever node. It does not block.
func (m *Manager) Changed() {
	for _, e := range m.entries {
		e.signal()
	}
}

// Retry makes what has failed be tried again now.
func (m *Manager) Retry() {
	for _, e := range m.entries {
		e.mu.Lock()
		e.retry, e.asked, e.failed = time.Time{}, time.Now(), 0
		e.mu.Unlock()
		e.signal()
	}
}

// Nudge makes what has failed be tried again now, because the way in may be open. Unlike Retry it does not forget how often it
// has failed, so that authorities are not asked without end.
func (m *Manager) Nudge() {
	for _, e := range m.entries {
		e.mu.Lock()
		failed := e.err != nil
		if failed {
			e.retry, e.asked = time.Time{}, time.Now()
		}
		e.mu.Unlock()
		if failed {
			e.signal()
		}
	}
}

func (e *entry) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Names are those that certificates are kept for.
func (m *Manager) Names() []string { return slices.Sorted(maps.Keys(m.entries)) }

// Certificate is the one for a name or address; nil: none yet, or none of ours.
func (m *Manager) Certificate(name string) *tls.Certificate {
	if e, ok := m.entries[canonical(name)]; ok {
		if k := e.current.Load(); k != nil {
			return k.cert
		}
	}
	return nil
}

// Get is the certificate for who says hello. A client that names nothing came to an address: it gets that one's, or behind
// a router, where the address it used is not ours, that of the first address there is one for. nil: none.
func (m *Manager) Get(hello *tls.ClientHelloInfo) *tls.Certificate {
	if hello.ServerName != "" {
		return m.Certificate(hello.ServerName)
	}
	if hello.Conn != nil {
		if ap, err := netip.ParseAddrPort(hello.Conn.LocalAddr().String()); err == nil {
			if cert := m.Certificate(ap.Addr().Unmap().WithZone("").String()); cert != nil {
				return cert
			}
		}
	}
	for _, name := range m.Names() {
		if _, err := netip.ParseAddr(name); err == nil {
			if cert := m.Certificate(name); cert != nil {
				return cert
			}
		}
	}
	return nil
}

// IsChallenge says whether a client hello is an authority that looks for its challenge (RFC 8737 section 3).
func IsChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ChallengeProtocol
}

// ErrNoChallenge says that no order of ours is waiting to be asked that.
var ErrNoChallenge = errors.New("no ACME challenge for this name")

// Challenge is the certificate that answers an authority, whichever node has placed the order.
func (m *Manager) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	config := m.challCfg.Load()
	if config == nil || !m.asked(hello.ServerName) {
		return nil, ErrNoChallenge
	}
	cert, err := config.GetCertificate(hello)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoChallenge, err)
	}
	return cert, nil
}

// asked says whether a name of a challenge is one of ours, so that strangers make nothing be looked up. Addresses are asked
// by their reverse names (RFC 8738 section 6).
func (m *Manager) asked(name string) bool {
	name = canonical(name)
	if _, ours := m.entries[name]; ours {
		return true
	}
	for own := range m.entries {
		if addr, err := netip.ParseAddr(own); err == nil && reverseName(addr) == name {
			return true
		}
	}
	return false
}

// AnswerHTTP answers an authority's HTTP challenge (RFC 8555 section 8.3), whichever node has placed the order, and says
// whether the request was one.
func (m *Manager) AnswerHTTP(w http.ResponseWriter, r *http.Request, host string) bool {
	issuer := m.challenge.Load()
	return issuer != nil && m.asked(host) && issuer.HandleHTTPChallenge(w, r)
}

// State is how it stands with all names. It leaves Trusted open.
func (m *Manager) State() State {
	s := State{Source: SourceACME, Names: m.Names()}
	var errs []error
	for _, name := range s.Names {
		e := m.entries[name]
		if k := e.current.Load(); k == nil {
			s.Missing = append(s.Missing, name)
		} else if leaf := k.cert.Leaf; s.NotAfter.IsZero() || leaf.NotAfter.Before(s.NotAfter) {
			s.NotAfter, s.Issuer = leaf.NotAfter, leaf.Issuer.CommonName
		}
		e.mu.Lock()
		if e.err != nil {
			errs = append(errs, e.err)
			if s.Retry.IsZero() || e.retry.Before(s.Retry) {
				s.Retry = e.retry
			}
		}
		e.mu.Unlock()
	}
	s.Err = errors.Join(errs...)
	return s
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// reverseName is the name of an address under arpa, without the last dot (RFC 1035 section 3.5, RFC 3596 section 2.5).
func reverseName(addr netip.Addr) string {
	var b strings.Builder
	bytes := addr.Unmap().AsSlice()
	for i := len(bytes) - 1; i >= 0; i-- {
		if addr.Unmap().Is4() {
			fmt.Fprintf(&b, "%d.", bytes[i])
		} else {
			fmt.Fprintf(&b, "%x.%x.", bytes[i]&15, bytes[i]>>4)
		}
	}
	if addr.Unmap().Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}
