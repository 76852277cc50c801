package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"callbox/internal/certs"
	"callbox/internal/config"
	"callbox/internal/localca"
)

// certificates are what TLS is served with: files of the owner's, else those of a public authority for the names it was
// asked for, else the local authority's.
type certificates struct {
	files *localca.Files // nil: the local authority
	ca    *localca.CA    // nil: files
	names []string       // of this host
	acme  *certs.Manager // nil: no --domain
	roots *x509.CertPool // nil: the system's

	mu     sync.Mutex
	judged map[*tls.Certificate]verdict // chains that were verified
}

// verdict is whether a chain is trusted, as found out at some time.
type verdict struct {
	trusted bool
	at      time.Time
}

const (
	// trustAge is how long a verdict on a chain holds: roots change and certificates end.
	trustAge = 10 * time.Minute
	// maxJudged bounds the verdicts; certificates that were renewed leave theirs behind.
	maxJudged = 64
)

func openCertificates(cfg config.Config, dir string, log *slog.Logger) (*certificates, error) {
	if cfg.TLSCert != "" {
		files, err := localca.OpenFiles(cfg.TLSCert, cfg.TLSKey, log, nil)
		if err != nil {
			return nil, err
		}
		return &certificates{files: files}, nil
	}
	names := hostNames(cfg)
	ca, err := localca.Open(dir, names, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !ca.May(name) && !slices.Contains(cfg.Domains, name) {
			log.Warn("the local certificate authority was made before this name was known and cannot speak for it; remove ca.crt and ca.key from the data directory for a new one", logName, name)
		}
	}
	return &certificates{ca: ca, names: names}, nil
}

// openACME reads the certificates for --domain that are there already. The others are ordered once the server runs.
func (a *App) openACME(ctx context.Context) error {
	if len(a.cfg.Domains) == 0 {
		return nil
	}
	var roots *x509.CertPool
	if path := a.cfg.ACMECARoot; path != "" {
		text, problem := readPEM(path, certificateProblem)
		if problem != "" {
			return fmt.Errorf("--acme-ca-root %s %s", path, problem)
		}
		roots = x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
	}
	a.certs.acme = certs.Open(ctx, certs.Config{
		Names: a.cfg.Domains, CA: a.cfg.ACMECA, Roots: roots, Email: a.cfg.ACMEEmail,
		Records: a.bus, Listen: a.addr, Log: a.log,
		InUse: func() {
			if a.live.Load().cfg.TURNS == config.Auto {
				a.hub.RenewICE() // turns: may be among the servers now
			}
		},
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		Addrs: func() []netip.Addr {
			l := a.live.Load()
			return slices.Compact(slices.Concat(l.public, l.addrs))
		},
	})
	return nil
}

// get is a tls.Config.GetCertificate.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.files != nil {
		return c.files.GetCertificate(hello)
	}
	if c.acme != nil {
		if certs.IsChallenge(hello) {
			return c.acme.Challenge(hello)
		}
		if cert := c.acme.Get(hello); cert != nil {
			return cert, nil
		}
	}
	return c.ca.GetCertificate(hello)
}

// hostNames are the names of this host: its own, also as neighbours find it by multicast DNS, the addresses that the start
// page names, --domain and --name.
func hostNames(cfg config.Config) []string {
	var names []string
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host, host+".local")
	}
	for _, addr := range preferred(hostAddrs()) {
		names = append(names, addr.String())
	}
	return append(names, cfg.HostNames()...)
}

// publiclyTrusted tells whether the world's clients accept the certificate under a name: what `--turns auto` asks, because
// a browser has nobody to click a warning away for a TURN server.
func (c *certificates) publiclyTrusted(host string, now time.Time) bool {
	var cert *tls.Certificate
	switch {
	case c.files != nil:
		cert = c.files.Current()
	case c.acme != nil:
		cert = c.acme.Certificate(host)
	}
	return cert != nil && c.chainTrusted(cert, now) && cert.Leaf.VerifyHostname(host) == nil
}

// chainTrusted tells whether they accept a chain.
func (c *certificates) chainTrusted(cert *tls.Certificate, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.judged[cert]; ok && now.Sub(v.at).Abs() < trustAge {
		return v.trusted
	}
	if c.judged == nil || len(c.judged) >= maxJudged {
		c.judged = make(map[*tls.Certificate]verdict)
	}
	v := verdict{trusted: localca.Trusted(cert, c.roots, now) == nil, at: now}
	c.judged[cert] = v
	return v.trusted
}

// CertificateState is how it stands with what TLS is served with.
func (a *App) CertificateState() certs.State { return a.certs.state(time.Now()) }

func (c *certificates) state(now time.Time) certs.State {
	switch {
	case c.acme != nil:
		s := c.acme.State()
		s.Trusted = len(s.Missing) == 0
		for _, name := range s.Names {
			s.Trusted = s.Trusted && c.publiclyTrusted(name, now)
		}
		return s
	case c.files == nil:
		return certs.State{Source: certs.SourceLocalCA, Names: c.names, Issuer: c.ca.Name()}
	}
	cert := c.files.Current()
	leaf := cert.Leaf
	s := certs.State{
		Source: certs.SourceFiles, Names: slices.Clone(leaf.DNSNames), NotAfter: leaf.NotAfter, Issuer: leaf.Issuer.CommonName,
		Trusted: c.chainTrusted(cert, now), Err: c.files.Err(),
	}
	for _, ip := range leaf.IPAddresses {
		s.Names = append(s.Names, ip.String())
	}
	return s
}

// fingerprint is the local authority's, or "".
func (c *certificates) fingerprint() string {
	if c.ca == nil {
		return ""
	}
	return c.ca.Fingerprint()
}

// errAuthority says that there is no local authority, because other certificates are served.
var errAuthority = errors.New("this server has certificates of its own and no local authority")

// authority is the local one, where it is what devices on the network see.
func (c *certificates) authority() (*localca.CA, error) {
	if c.ca == nil || c.acme != nil {
		return nil, errAuthority
	}
	return c.ca, nil
}
