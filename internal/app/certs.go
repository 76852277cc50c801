package app

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"callbox/internal/certs"
	"callbox/internal/config"
	"callbox/internal/localca"
)

// certificates are what TLS is served with: files of the owner's, else the local authority.
type certificates struct {
	get   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	files *localca.Files // nil: the local authority
	ca    *localca.CA    // nil: files
	path  string         // of the authority's certificate
	names []string       // of this host
	roots *x509.CertPool // nil: the system's

	mu      sync.Mutex
	judged  *tls.Certificate // the last certificate whose chain was verified
	trusted error            // the outcome
	at      time.Time
}

// trustAge is how long a verdict on a chain holds: roots change and certificates end.
const trustAge = 10 * time.Minute

func openCertificates(cfg config.Config, dir string, log *slog.Logger) (*certificates, error) {
	if cfg.TLSCert != "" {
		files, err := localca.OpenFiles(cfg.TLSCert, cfg.TLSKey, log, nil)
		if err != nil {
			return nil, err
		}
		return &certificates{get: files.GetCertificate, files: files}, nil
	}
	names := hostNames(cfg)
	ca, err := localca.Open(dir, names, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !ca.May(name) {
			log.Warn("the local certificate authority was made before this name was known and cannot speak for it; remove ca.crt and ca.key from the data directory for a new one", logName, name)
		}
	}
	return &certificates{get: ca.GetCertificate, ca: ca, names: names, path: filepath.Join(dir, "ca.crt")}, nil
}

// hostNames are the names of this host: its own, also as neighbours find it by multicast DNS, the addresses that the start
// page names, and --name.
func hostNames(cfg config.Config) []string {
	var names []string
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host, host+".local")
	}
	for _, addr := range preferred(hostAddrs()) {
		names = append(names, addr.String())
	}
	return append(names, cfg.Names...)
}

// publiclyTrusted tells whether the world's clients accept the certificate under a name: what `--turns auto` asks, because
// a browser has nobody to click a warning away for a TURN server.
func (c *certificates) publiclyTrusted(host string, now time.Time) bool {
	return c.files != nil && c.chainTrusted(now) && c.files.Current().Leaf.VerifyHostname(host) == nil
}

// chainTrusted tells whether they accept the chain of the owner's files.
func (c *certificates) chainTrusted(now time.Time) bool {
	cert := c.files.Current()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.judged != cert || now.Sub(c.at) > trustAge {
		c.judged, c.at = cert, now
		c.trusted = localca.Trusted(cert, c.roots, now)
	}
	return c.trusted == nil
}

// CertificateState is how it stands with what TLS is served with.
func (a *App) CertificateState() certs.State { return a.certs.state(time.Now()) }

func (c *certificates) state(now time.Time) certs.State {
	if c.files == nil {
		return certs.State{Source: certs.SourceLocalCA, Names: c.names, Issuer: c.ca.Name()}
	}
	leaf := c.files.Current().Leaf
	s := certs.State{Source: certs.SourceFiles, Names: slices.Clone(leaf.DNSNames), NotAfter: leaf.NotAfter, Issuer: leaf.Issuer.CommonName, Err: c.files.Err()}
	for _, ip := range leaf.IPAddresses {
		s.Names = append(s.Names, ip.String())
	}
	s.Trusted = c.chainTrusted(now)
	return s
}
