package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callbox/internal/doctor"
)

// certificateFiles writes a certificate that signs itself.
func certificateFiles(t *testing.T, name string, from, until time.Time) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	writeFile(t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return certificate, key
}

// TestDoctorExaminesTheCertificate that is served. One that begins in the future says that the clock is behind.
func TestDoctorExaminesTheCertificate(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	for _, tc := range []struct {
		what            string
		name            string
		from, until     time.Time
		check           string
		verdict         doctor.Verdict
		saw, inItRemedy string
	}{
		{"expired", "call.example", now.Add(-90 * day), now.Add(-day), doctor.NameCertificate, doctor.Fail, "expired", "renew the files"},
		{"another name", "other.example", now.Add(-day), now.Add(90 * day), doctor.NameCertificate, doctor.Fail, "not for call.example", "all names"},
		{"nobody's", "call.example", now.Add(-day), now.Add(90 * day), doctor.NameCertificate, doctor.Warn, "not publicly trusted", "--tls-cert"},
		{"not yet", "call.example", now.Add(2 * day), now.Add(90 * day), doctor.NameClock, doctor.Fail, "the certificate begins", "timedatectl"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			certificate, key := certificateFiles(t, tc.name, tc.from, tc.until)
			r := callbox(t, "", "doctor", "--json", "--data", filepath.Join(dataDir(t), "data"), "--listen", "127.0.0.1:0",
				"--name", "call.example", "--tls-cert", certificate, "--tls-key", key)
			c := named(t, decode[doctor.Report](t, r.stdout), tc.check)
			if c.Verdict != tc.verdict || !strings.Contains(c.Saw, tc.saw) || !strings.Contains(c.Remedy, tc.inItRemedy) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestDoctorSaysWhyACMEFails: nobody answers as the authority. A server that was never started orders nothing.
func TestDoctorSaysWhyACMEFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	authority := "https://" + l.Addr().String() + "/directory"
	l.Close()
	for _, tc := range []struct {
		data    string
		verdict doctor.Verdict
		saw     string
		remedy  string
	}{
		{dataDir(t), doctor.Fail, "none yet for call.invalid: ", "reach the authority (--acme-ca)"},
		{filepath.Join(dataDir(t), "missing"), doctor.Warn, "nothing has failed", "ask again"},
	} {
		r := callbox(t, "", "doctor", "--json", "--data", tc.data, "--listen", "127.0.0.1:0", "--domain", "call.invalid", "--acme-ca", authority)
		report := decode[doctor.Report](t, r.stdout)
		if c := named(t, report, doctor.NameCertificate); c.Verdict != tc.verdict || !strings.Contains(c.Saw, tc.saw) || !strings.Contains(c.Remedy, tc.remedy) {
			t.Errorf("%+v", c)
		}
		// The name is one that nobody can have (RFC 6761 section 6.4).
		if c := named(t, report, doctor.NameDNS); c.Verdict != doctor.Fail || !strings.Contains(c.Saw, "call.invalid") {
			t.Errorf("%+v", c)
		}
	}
}
