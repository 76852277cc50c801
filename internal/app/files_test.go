package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callbox/internal/config"
)

func pemOf(t *testing.T, kind string) func(der []byte, err error) string {
	return func(der []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
}

func TestFaultsOfACertificateAndItsKeyAreFoundTogether(t *testing.T) {
	cert, key, _ := ownCertificate(t, "call.example")
	_, otherKey, _ := ownCertificate(t, "call.example")
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "file")
		writeFile(t, path, text)
		return path
	}
	certText, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	missing, long := filepath.Join(t.TempDir(), "missing"), file(strings.Repeat("x", maxPEM+1))
	damaged := file(string(certText) + pemOf(t, "CERTIFICATE")([]byte("x"), nil))
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := file(pemOf(t, "EC PARAMETERS")([]byte("x"), nil) + pemOf(t, "EC PRIVATE KEY")(x509.MarshalECPrivateKey(ec)))
	pkcs1 := file(pemOf(t, "RSA PRIVATE KEY")(x509.MarshalPKCS1PrivateKey(rsaKey), nil))
	mismatch := "is not the key of the certificate " + cert
	for _, c := range []struct{ cert, key, certFault, keyFault string }{
		{cert, key, "", ""},
		{"", "", "", ""},
		{missing, missing, "does not exist", "does not exist"},
		{t.TempDir(), long, "is not a regular file", "is longer than"},
		{key, cert, "holds no certificate in PEM form", "holds no private key in PEM form"},
		{damaged, file(pemOf(t, "PRIVATE KEY")([]byte("x"), nil)), "holds a damaged certificate", "holds a damaged key"},
		{missing, file(pemOf(t, "ENCRYPTED PRIVATE KEY")([]byte("x"), nil)), "does not exist", "locked with a passphrase"},
		{missing, sec1, "does not exist", ""},
		{missing, pkcs1, "does not exist", ""},
		{cert, otherKey, "", mismatch},
		{cert, pkcs1, "", mismatch},
	} {
		got := map[string]string{}
		for _, f := range CheckFiles(config.Config{TLSCert: c.cert, TLSKey: c.key}) {
			if f.Remedy == "" || f.Value == "" || got[f.Key] != "" {
				t.Errorf("fault %+v", f)
			}
			got[f.Key] = f.Problem
		}
		for key, want := range map[string]string{"tls-cert": c.certFault, "tls-key": c.keyFault} {
			if (got[key] == "") != (want == "") || !strings.Contains(got[key], want) {
				t.Errorf("%s of %s and %s: %q, want %q", key, c.cert, c.key, got[key], want)
			}
		}
	}
}

func TestNamesThatNobodySignsAreFaults(t *testing.T) {
	cert, key, _ := ownCertificate(t, "call.example")
	for _, c := range []struct {
		domain, ca, root string
		faults           string // keys
	}{
		{"call.example", "", "", ""},
		{"8.8.8.8", "", "", ""},
		{"2001:4860::1", "", "", ""},
		{"192.168.1.7", "", "", "domain"},
		{"100.64.0.1", "", "", "domain"},
		{"fd00::1", "", "", "domain"},
		{"homebox.local", "", "", "domain"},
		{"localhost", "", "", "domain"},
		{"homebox.local", "https://ca.internal/dir", "", ""},
		{"homebox.local", "https://ca.internal/dir", cert, ""},
		{"homebox.local", "https://ca.internal/dir", key, "acme-ca-root"},
		{"call.example", "https://ca.internal/dir", "/nowhere", "acme-ca-root"},
	} {
		var keys []string
		for _, f := range CheckFiles(config.Config{Domains: []string{c.domain}, ACMECA: c.ca, ACMECARoot: c.root}) {
			keys = append(keys, f.Key)
		}
		if got := strings.Join(keys, " "); got != c.faults {
			t.Errorf("%+v: faults in %q", c, got)
		}
	}
}
