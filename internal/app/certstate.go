package app

import (
	"fmt"
	"strings"
	"time"

	"callbox/internal/certs"
	"callbox/internal/metrics"
)

// readyCertificate is what /readyz says of the certificate.
type readyCertificate struct {
	Source   string     `json:"source"` // "acme", "files" or "local-ca"
	Names    []string   `json:"names"`
	Missing  []string   `json:"missing,omitempty"` // names there is no certificate for yet
	NotAfter *time.Time `json:"notAfter,omitempty"`
	Issuer   string     `json:"issuer,omitempty"`
	Trusted  bool       `json:"trusted"`         // by the world's clients
	Error    string     `json:"error,omitempty"` // of the last order, renewal or reading
	Retry    *time.Time `json:"retry,omitempty"`
}

func certificateReadiness(s certs.State) readyCertificate {
	out := readyCertificate{Source: s.Source, Names: s.Names, Missing: s.Missing, Issuer: s.Issuer, Trusted: s.Trusted}
	if !s.NotAfter.IsZero() {
		out.NotAfter = &s.NotAfter
	}
	if s.Err != nil {
		out.Error = s.Err.Error()
	}
	if !s.Retry.IsZero() {
		out.Retry = &s.Retry
	}
	return out
}

func (a *App) certificateStats() metrics.CertificateStats {
	s := a.CertificateState()
	return metrics.CertificateStats{Source: s.Source, Expires: s.NotAfter, Missing: len(s.Missing), Failing: s.Err != nil}
}

// certificateLines are what the start page says of the certificate; none for the local authority, of which it says more.
func certificateLines(s certs.State, now time.Time) []string {
	const day = "2 January 2006"
	switch {
	case s.Source == certs.SourceLocalCA:
		return nil
	case s.Source == certs.SourceFiles:
		return []string{fmt.Sprintf("from your files, until %s", s.NotAfter.Format(day))}
	}
	var lines []string
	if have := len(s.Names) - len(s.Missing); have > 0 {
		lines = append(lines, fmt.Sprintf("signed by %s, until %s; renewed by itself", s.Issuer, s.NotAfter.Format(day)))
	}
	if len(s.Missing) > 0 {
		lines = append(lines, "being ordered for "+strings.Join(s.Missing, " and ")+"; until it is here, browsers warn")
	}
	if s.Err != nil && now.Before(s.Retry) {
		lines = append(lines, s.Err.Error())
	}
	return lines
}
