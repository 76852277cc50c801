package app

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"callbox/internal/config"
	"callbox/internal/localca"
)

// certificates are what TLS is served with: files of the owner's, else the local authority.
type certificates struct {
	get   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	files *localca.Files // nil: the local authority
	ca    *localca.CA    // nil: files
	path  string         // of the authority's certificate
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
	return &certificates{get: ca.GetCertificate, ca: ca, path: filepath.Join(dir, "ca.crt")}, nil
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
	if c.files == nil {
		return false
	}
	cert := c.files.Current()
	c.mu.Lock()
	if c.judged != cert || now.Sub(c.at) > trustAge {
		c.judged, c.at = cert, now
		c.trusted = localca.Trusted(cert, c.roots, now)
	}
	trusted := c.trusted
	c.mu.Unlock()
	return trusted == nil && cert.Leaf.VerifyHostname(host) == nil
}
