package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

const (
	// orderTimeout bounds one order, from its first request to the certificate.
	orderTimeout = 10 * time.Minute
	// askEvery is how often the authority is asked whether it wants a certificate renewed early (RFC 9773 section 4.3).
	askEvery = 6 * time.Hour
	// maintenance is how often certmagic looks at certificates of its own, of which it has none here; what expires within
	// five times that, it takes for one to be renewed.
	maintenance = time.Minute
	// shortLived is Let's Encrypt's profile for certificates of addresses, which it signs for six days only.
	shortLived = "shortlived"
)

// pauses lie between attempts in a row. Authorities allow five refusals an hour for one name.
func pause(failed int) time.Duration {
	pauses := [...]time.Duration{
		time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour,
	}
	return pauses[min(max(failed, 1), len(pauses))-1]
}

func (m *Manager) newCache() *certmagic.Cache {
	return certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errors.New("kept elsewhere") },
		RenewCheckInterval: maintenance,
		Logger:             debugLogger(m.cfg.Log),
	})
}

func (m *Manager) newConfig(cache *certmagic.Cache, s *storage, failed func(error)) *certmagic.Config {
	return certmagic.New(cache, certmagic.Config{
		Storage:             s,
		DisableStorageCheck: true,
		KeySource:           certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		RenewalWindowRatio:  certmagic.DefaultRenewalWindowRatio,
		Logger:              debugLogger(m.cfg.Log),
		Issuers:             []certmagic.Issuer{&certmagic.ACMEIssuer{CA: m.cfg.CA}}, // until the real one, which needs the Config
		OnEvent: func(_ context.Context, event string, data map[string]any) error {
			if err, ok := data["error"].(error); ok && event == "cert_failed" && failed != nil {
				failed(err)
			}
			return nil
		},
	})
}

// newIssuer speaks to the authority. It is told that challenges arrive where this process serves already, so that it opens
// no listener of its own.
func (m *Manager) newIssuer(config *certmagic.Config, profile string) *certmagic.ACMEIssuer {
	port := int(m.cfg.Listen.Port())
	host := m.cfg.Listen.Addr().String()
	if m.cfg.Listen.Addr().IsUnspecified() {
		host = ""
	}
	return certmagic.NewACMEIssuer(config, certmagic.ACMEIssuer{
		CA: m.cfg.CA, Email: m.cfg.Email, TrustedRoots: m.cfg.Roots, Agreed: true, Profile: profile,
		ListenHost: host, AltHTTPPort: port, AltTLSALPNPort: port,
		DisableHTTPChallenge:    m.cfg.Only != "" && m.cfg.Only != acme.ChallengeTypeHTTP01,
		DisableTLSALPNChallenge: m.cfg.Only != "" && m.cfg.Only != acme.ChallengeTypeTLSALPN01,
		CertObtainTimeout:       orderTimeout,
		Logger:                  debugLogger(m.cfg.Log),
	})
}

// keep orders and renews one certificate until the context ends. Run starts and waits for it.
func (m *Manager) keep(ctx context.Context, cache *certmagic.Cache, e *entry) {
	nextAsk := time.Now().Add(m.cfg.Ask)
	for {
		now := time.Now()
		early := false
		if k := e.current.Load(); k != nil && now.After(nextAsk) {
			nextAsk = now.Add(m.cfg.Ask)
			early = m.wantedEarly(ctx, k)
		}
		if e.isDue(now) || early {
			m.attempt(ctx, cache, e, early)
		}
		wait := time.NewTimer(m.untilNext(e, time.Now()))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-e.wake:
			if err := m.refresh(ctx, e); err != nil && ctx.Err() == nil {
				m.cfg.Log.Debug("stored certificate not read", "name", e.name, "error", err)
			}
		case <-wait.C:
		}
		wait.Stop()
	}
}

// isDue says whether an attempt is to be made.
func (e *entry) isDue(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.current.Load()
	return !now.Before(e.retry) && (k == nil || !now.Before(k.due))
}

func (m *Manager) untilNext(e *entry, now time.Time) time.Duration {
	next := now.Add(m.cfg.Check)
	k := e.current.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	due := e.retry
	if k != nil && k.due.After(due) {
		due = k.due
	}
	if due.Before(next) {
		next = due
	}
	return max(next.Sub(now), 0)
}

// attempt places an order where it is still needed, and remembers the outcome.
func (m *Manager) attempt(ctx context.Context, cache *certmagic.Cache, e *entry, early bool) {
	before := e.current.Load()
	err := m.tryOrder(ctx, cache, e, early)
	if ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var others *failure
	switch {
	case err == nil:
		e.err, e.retry, e.failed = nil, time.Time{}, 0
		if k := e.current.Load(); k != before {
			m.cfg.Log.Info("certificate in use", "name", e.name, "expires", k.cert.Leaf.NotAfter, "issuer", k.cert.Leaf.Issuer.CommonName)
		} else if !time.Now().Before(k.due) {
			e.retry = time.Now().Add(pause(1)) // certmagic sees no need yet
		}
	case errors.As(err, &others):
		e.err, e.retry, e.failed = others, others.At.Add(pause(others.Count)), others.Count
	default:
		e.failed++
		e.err, e.retry = err, time.Now().Add(pause(e.failed))
		m.cfg.Log.Warn("no certificate", "name", e.name, "error", err, "retry", e.retry)
	}
}

// failure is an attempt that failed, as other nodes read it: they do not try the same before it is worth it.
type failure struct {
	Run   string    `json:"run"` // of the Manager that failed
	At    time.Time `json:"at"`
	Count int       `json:"count"`
	Text  string    `json:"text"`
}

func (f *failure) Error() string { return f.Text + " (seen by another node)" }

func failureKey(name string) string { return "failures/" + certmagic.StorageKeys.Safe(name) }

// tryOrder takes the lock, looks whether another node was first, and else places the order.
func (m *Manager) tryOrder(ctx context.Context, cache *certmagic.Cache, e *entry, early bool) error {
	s := newStorage(m.cfg.Records, m.cfg.Lease, m.cfg.Log)
	name := "order_" + e.name
	if err := s.Lock(ctx, name); err != nil {
		return err
	}
	defer func() {
		if err := s.Unlock(context.WithoutCancel(ctx), name); err != nil {
			m.cfg.Log.Debug("certificate lock not given up; it ends by itself", "name", e.name, "error", err)
		}
	}()
	before := e.current.Load()
	if err := m.refresh(ctx, e); err != nil {
		return err
	}
	if k := e.current.Load(); k != nil && time.Now().Before(k.due) && !(early && k == before) {
		return nil
	}
	if f := m.lastFailure(ctx, s, e); f != nil {
		return f
	}
	err := m.order(ctx, cache, s, e, early)
	if err != nil && ctx.Err() == nil {
		err = m.explain(ctx, e.name, err)
		e.mu.Lock()
		f := failure{Run: m.run, At: time.Now(), Count: e.failed + 1, Text: err.Error()}
		e.mu.Unlock()
		if text, errText := json.Marshal(f); errText == nil {
			_ = s.Store(ctx, failureKey(e.name), text) // other nodes then find out by themselves
		}
	}
	if err != nil {
		return err
	}
	_ = s.Delete(ctx, failureKey(e.name))
	if err := m.refresh(ctx, e); err != nil {
		return err
	}
	if e.current.Load() == nil {
		return fmt.Errorf("certificate for %s: %w", e.name, fs.ErrNotExist)
	}
	return nil
}

// lastFailure is one of another node's that still counts.
func (m *Manager) lastFailure(ctx context.Context, s *storage, e *entry) *failure {
	text, err := s.Load(ctx, failureKey(e.name))
	var f failure
	if err != nil || json.Unmarshal(text, &f) != nil || f.Run == m.run {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); f.At.Before(e.asked) || now.After(f.At.Add(pause(f.Count))) || f.At.After(now.Add(time.Hour)) {
		return nil
	}
	return &f
}

// order places one. certmagic goes on trying for a month; here one attempt is one attempt, and its error is ours.
func (m *Manager) order(ctx context.Context, cache *certmagic.Cache, s *storage, e *entry, early bool) error {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	var failed error
	config := m.newConfig(cache, s, func(err error) { failed = err; cancel() })
	profile, err := m.profile(ctx, config, e.name)
	if err != nil {
		return err
	}
	// An order may name the certificate it replaces (RFC 9773 section 5), and an authority that knows nothing of that one refuses it. So
	// every other attempt names none.
	e.mu.Lock()
	config.DisableARI = e.failed%2 == 1
	e.mu.Unlock()
	config.Issuers = []certmagic.Issuer{m.newIssuer(config, profile)}
	err = config.RenewCertAsync(ctx, e.name, early)
	if failed != nil {
		return failed
	}
	return err
}

// profile is the kind of certificate to ask for. An authority that has short-lived ones signs addresses as nothing else.
func (m *Manager) profile(ctx context.Context, config *certmagic.Config, name string) (string, error) {
	if _, err := netip.ParseAddr(name); err != nil {
		return "", nil
	}
	directory, err := readDirectory(ctx, m.cfg.CA, m.cfg.Roots)
	if err != nil {
		return "", err
	}
	if directory.Meta != nil {
		if _, has := directory.Meta.Profiles[shortLived]; has {
			return shortLived, nil
		}
	}
	return "", nil
}

// wantedEarly asks the authority whether it wants the certificate replaced before its time, as when it will be revoked.
func (m *Manager) wantedEarly(ctx context.Context, k *kept) bool {
	issuer := m.challenge.Load()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, err := issuer.GetRenewalInfo(ctx, certmagic.Certificate{Certificate: *k.cert})
	if err != nil {
		m.cfg.Log.Debug("renewal information not read", "error", err)
		return false
	}
	start := info.SuggestedWindow.Start
	return !start.IsZero() && time.Now().After(start)
}

// refresh takes over what is stored, where it is newer or nothing is there yet. Nothing stored is no error.
func (m *Manager) refresh(ctx context.Context, e *entry) error {
	s := newStorage(m.cfg.Records, m.cfg.Lease, m.cfg.Log)
	keys := certmagic.StorageKeys
	var text [3][]byte
	for i, key := range []string{keys.SiteCert(m.issuerKey, e.name), keys.SitePrivateKey(m.issuerKey, e.name), keys.SiteMeta(m.issuerKey, e.name)} {
		var err error
		if text[i], err = s.Load(ctx, key); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("stored certificate: %w", err)
		}
	}
	pair, err := tls.X509KeyPair(text[0], text[1])
	if err != nil {
		// The node that renews writes one after the other: this was between them, and the next change comes.
		m.cfg.Log.Debug("stored certificate and key do not fit each other yet", "name", e.name, "error", err)
		return nil
	}
	k := e.current.Load()
	if k != nil && string(k.cert.Certificate[0]) == string(pair.Certificate[0]) {
		return nil
	}
	leaf := pair.Leaf
	due := leaf.NotAfter.Add(-time.Duration(float64(leaf.NotAfter.Sub(leaf.NotBefore)) * certmagic.DefaultRenewalWindowRatio))
	if at := selectedTime(text[2]); !at.IsZero() && at.Before(due) {
		due = at
	}
	e.current.Store(&kept{cert: &pair, due: due})
	if k == nil && m.cfg.InUse != nil {
		m.cfg.InUse()
	}
	return nil
}

// selectedTime is when the authority wanted the certificate renewed (RFC 9773), as certmagic keeps it; zero: unknown.
func selectedTime(meta []byte) time.Time {
	var resource certmagic.CertificateResource
	var data acme.Certificate
	if json.Unmarshal(meta, &resource) != nil || json.Unmarshal(resource.IssuerData, &data) != nil || data.RenewalInfo == nil {
		return time.Time{}
	}
	return data.RenewalInfo.SelectedTime
}
