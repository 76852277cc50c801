package app

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"callbox/internal/config"
	"callbox/internal/localca"
)

// ownCertificate writes a certificate for a name of the test's authority as an owner's files.
func ownCertificate(t *testing.T, name string) (certPath, keyPath string, roots *x509.CertPool) {
	t.Helper()
	ca, err := localca.Open(t.TempDir(), []string{name}, nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Leaf(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certPath, keyPath = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	writeFile(t, certPath, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})))
	writeFile(t, keyPath, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	return certPath, keyPath, roots
}

func TestTURNSIsOfferedWhereTheWorldTrustsTheCertificate(t *testing.T) {
	const name = "call.example"
	cert, key, roots := ownCertificate(t, name)
	log := slog.New(slog.DiscardHandler)
	owner, err := openCertificates(config.Config{TLSCert: cert, TLSKey: key}, t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	owner.roots = roots
	unknown, err := openCertificates(config.Config{TLSCert: cert, TLSKey: key}, t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	unknown.roots = x509.NewCertPool()
	local, err := openCertificates(config.Config{}, t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		certs *certificates
		turns config.Toggle
		host  string
		want  bool
	}{
		"trusted, its name":           {owner, config.Auto, name, true},
		"trusted, another name":       {owner, config.Auto, "other.example", false},
		"trusted, an address":         {owner, config.Auto, "192.0.2.1", false},
		"authority nobody knows":      {unknown, config.Auto, name, false},
		"local authority":             {local, config.Auto, "localhost", false},
		"trusted but off":             {owner, config.Off, name, false},
		"local authority, but wanted": {local, config.On, "localhost", true},
	} {
		a := &App{certs: c.certs}
		a.live.Store(&live{cfg: config.Config{TURNS: c.turns}})
		if got := a.offersTLS(c.host); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if owner.publiclyTrusted(name, time.Now().Add(365*24*time.Hour)) {
		t.Error("trusted after its end")
	}
}
