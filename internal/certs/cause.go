package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

var (
	// ErrRefused says that the authority was reached and does not sign.
	ErrRefused = errors.New("ACME refused")
	// ErrUnreachable says that the authority could not be asked.
	ErrUnreachable = errors.New("the ACME server cannot be reached")
)

// explainTimeout bounds the look at the DNS.
const explainTimeout = 5 * time.Second

// explain turns the failure of an order into a cause and what to do about it.
func (m *Manager) explain(ctx context.Context, name string, err error) error {
	var problem acme.Problem
	if !errors.As(err, &problem) {
		return m.unreachable(err)
	}
	kind := problem.Type[strings.LastIndex(problem.Type, ":")+1:]
	detail := strings.TrimRight(problem.Detail, ". ")
	for _, sub := range problem.Subproblems {
		detail += "; " + strings.TrimRight(sub.Detail, ". ")
	}
	remedy := ""
	switch problem.Type {
	case acme.ProblemTypeConnection, acme.ProblemTypeUnauthorized, acme.ProblemTypeDNS, acme.ProblemTypeTLS, acme.ProblemTypeIncorrectResponse:
		remedy = m.whereNameLeads(ctx, name)
	case acme.ProblemTypeRateLimited:
		remedy = "the authority allows no further order for now; it is tried again later"
	case acme.ProblemTypeCAA:
		remedy = "a CAA record in the DNS of " + name + " permits other authorities only"
	case acme.ProblemTypeRejectedIdentifier:
		remedy = "this authority does not sign for " + name + "; another may (--acme-ca)"
	}
	if remedy != "" {
		remedy = "; " + remedy
	}
	return fmt.Errorf("%w %s: %s (%s)%s", ErrRefused, name, detail, kind, remedy)
}

// whereNameLeads compares the DNS with this host.
func (m *Manager) whereNameLeads(ctx context.Context, name string) string {
	const ports = "the authority comes to ports 80 and 443 from outside: they must be open, and forwarded to this host"
	var own []netip.Addr
	if m.cfg.Addrs != nil {
		own = m.cfg.Addrs()
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		if slices.Contains(own, addr) {
			return ports
		}
		return fmt.Sprintf("this host is %s; %s", list(own), ports)
	}
	if m.cfg.Lookup == nil {
		return ports
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	found, err := m.cfg.Lookup(ctx, name)
	var missing *net.DNSError
	switch {
	case errors.As(err, &missing) && missing.IsNotFound:
		return "the DNS knows no address for " + name + "; make an A or AAAA record that points to this host"
	case err != nil || len(found) == 0:
		return ports
	}
	for i, addr := range found {
		found[i] = addr.Unmap()
		if slices.Contains(own, found[i]) {
			return ports
		}
	}
	return fmt.Sprintf("DNS points to %s but this host is %s; if a router stands between, it must have that address and forward ports 80 and 443, else correct the record", list(found), list(own))
}

// Public says whether an authority of the world may sign a name or address at all.
func Public(name string) bool {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.IsGlobalUnicast() && !addr.IsPrivate() && !sharedRange().Contains(addr.Unmap())
	}
	return certmagic.SubjectQualifiesForPublicCert(name)
}

// sharedRange is what providers number their customers with behind a shared address (RFC 6598).
func sharedRange() netip.Prefix { return netip.MustParsePrefix("100.64.0.0/10") }

func list(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "unknown"
	}
	var out []string
	for _, a := range addrs[:min(len(addrs), 4)] {
		out = append(out, a.String())
	}
	if more := len(addrs) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("%d more", more))
	}
	return strings.Join(out, " and ")
}

// unreachable explains errors that no authority has sent.
func (m *Manager) unreachable(err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &unknown), errors.As(err, &invalid):
		return fmt.Errorf("%w: its own certificate is not trusted here (a private one needs --acme-ca-root, and the clock must be right): %w", ErrUnreachable, err)
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: this host must reach %s: %w", ErrUnreachable, m.cfg.CA, err)
	}
	return err
}

// readDirectory asks the authority what it offers (RFC 8555 section 7.1.1).
func readDirectory(ctx context.Context, url string, roots *x509.CertPool) (acme.Directory, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	client := acme.Client{Directory: url, HTTPClient: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	directory, err := client.GetDirectory(ctx)
	if err != nil {
		return acme.Directory{}, fmt.Errorf("ACME directory: %w", err)
	}
	return directory, nil
}
