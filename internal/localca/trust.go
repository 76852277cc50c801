package localca

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// Trusted tells whether the clients of the world accept a certificate: whether its chain ends at one of roots (nil: the
// system's) at that time. It says nothing about names.
func Trusted(cert *tls.Certificate, roots *x509.CertPool, now time.Time) error {
	if cert == nil || cert.Leaf == nil {
		return fmt.Errorf("certificate: none")
	}
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("certificate chain: %w", err)
		}
		between.AddCert(c)
	}
	_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}
