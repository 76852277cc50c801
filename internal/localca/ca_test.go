package localca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string, now func() time.Time) *CA {
	t.Helper()
	ca, err := Open(dir, []string{"homebox", "homebox.local"}, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func roots(ca *CA) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

func TestAuthorityIsMadeOnceAndKeptPrivate(t *testing.T) {
	dir := t.TempDir()
	first, second := open(t, dir, nil), open(t, dir, nil)
	if first.Fingerprint() != second.Fingerprint() {
		t.Error("the second start made another authority")
	}
	for _, name := range []string{certFile, keyFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 && filepath.Separator == '/' {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
}

func TestLeafVerifiesForItsHostOnly(t *testing.T) {
	ca := open(t, t.TempDir(), nil)
	for _, host := range []string{"localhost", "homebox", "HOMEBOX.local", "192.168.1.7", "127.0.0.1", "::1", "fd00::1"} {
		leaf, err := ca.Leaf(host)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots(ca), DNSName: host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots(ca), DNSName: "example.com"}); err == nil {
			t.Errorf("the leaf of %s is good for example.com", host)
		}
	}
	for _, host := range []string{"example.com", "8.8.8.8", "evil.homebox", "2001:4860::1"} {
		if _, err := ca.Leaf(host); err == nil {
			t.Errorf("a leaf for %s", host)
		}
	}
}

// OpenSSL, and so curl, judges a common name with dots as a DNS name where no DNS name is in the certificate (cn2dnsid).
func TestLeafOfAnAddressNamesItOnlyAsAnAddress(t *testing.T) {
	leaf, err := open(t, t.TempDir(), nil).Leaf("192.168.1.7")
	if err != nil {
		t.Fatal(err)
	}
	if name := leaf.Leaf.Subject.CommonName; strings.Contains(name, ".") {
		t.Errorf("common name %q", name)
	}
}

func TestAuthoritySpeaksForThePublicAddressesItWasMadeFor(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, []string{"homebox", "203.0.113.9", "2001:db8::9", "192.168.1.7"}, nil); err != nil {
		t.Fatal(err)
	}
	ca := open(t, dir, nil)
	for _, host := range []string{"203.0.113.9", "2001:db8::9", "192.168.9.9"} {
		leaf, err := ca.Leaf(host)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots(ca), DNSName: host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if ca.May("203.0.113.10") {
		t.Error("it speaks for the neighbour")
	}
}

func TestStolenKeyIsWorthNothingElsewhere(t *testing.T) {
	ca := open(t, t.TempDir(), nil)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, forged := range []*x509.Certificate{
		{DNSNames: []string{"bank.example"}},
		{IPAddresses: []net.IP{net.IPv4(8, 8, 8, 8)}},
	} {
		forged.SerialNumber, forged.Subject = big.NewInt(1), pkix.Name{CommonName: "forged"}
		forged.NotBefore, forged.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		forged.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		der, err := x509.CreateCertificate(rand.Reader, forged, ca.cert, key.Public(), ca.key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		var invalid x509.CertificateInvalidError
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots(ca)}); !errors.As(err, &invalid) || invalid.Reason != x509.CANotAuthorizedForThisName {
			t.Errorf("%v %v: want a refusal by name constraints, got %v", forged.DNSNames, forged.IPAddresses, err)
		}
	}
}

func TestLeafIsRenewedInTime(t *testing.T) {
	now := time.Now()
	ca := open(t, t.TempDir(), func() time.Time { return now })
	first, err := ca.Leaf("localhost")
	if err != nil {
		t.Fatal(err)
	}
	again, _ := ca.Leaf("localhost")
	if again != first {
		t.Error("a fresh leaf was made again")
	}
	now = now.Add(leafLife - renewBefore + time.Minute)
	renewed, err := ca.Leaf("localhost")
	if err != nil {
		t.Fatal(err)
	}
	if !renewed.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("not renewed in the last third of its life")
	}
}

func TestAuthorityNearItsEndIsReplaced(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, nil)
	later := open(t, dir, func() time.Time { return time.Now().Add(caLife - leafLife/2) })
	if first.Fingerprint() == later.Fingerprint() {
		t.Error("kept an authority that ends before its leaves")
	}
}

func TestDamagedAuthorityIsAnErrorAndIsKept(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"key missing": func(dir string) error { return os.Remove(filepath.Join(dir, keyFile)) },
		"garbage":     func(dir string) error { return os.WriteFile(filepath.Join(dir, certFile), []byte("x"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, nil)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(filepath.Join(dir, certFile))
			if _, err := Open(dir, nil, nil); !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v", err)
			}
			if after, _ := os.ReadFile(filepath.Join(dir, certFile)); string(after) != string(before) {
				t.Error("the damaged file was overwritten")
			}
		})
	}
}

func TestHandshakeWithoutNameGetsTheAddressItCameTo(t *testing.T) {
	ca := open(t, t.TempDir(), nil)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: ca.GetCertificate})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots(ca)})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestFilesAreFollowedAndBrokenOnesAreNot(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	install := func(from *CA, dirOf string) {
		t.Helper()
		if err := errors.Join(write(cert, from.pem), write(key, mustRead(t, filepath.Join(dirOf, keyFile)))); err != nil {
			t.Fatal(err)
		}
	}
	firstDir, secondDir := t.TempDir(), t.TempDir()
	first, second := open(t, firstDir, nil), open(t, secondDir, nil)
	install(first, firstDir)
	files, err := OpenFiles(cert, key, slog.New(slog.DiscardHandler), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	step := func() *tls.Certificate { now = now.Add(recheck); return files.Current() }
	before := step()

	if err := os.WriteFile(cert, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if step() != before {
		t.Error("a broken file replaced the certificate")
	}
	install(second, secondDir)
	if got := step(); !got.Leaf.Equal(second.cert) {
		t.Error("the new files were not loaded")
	}
	if files.Again() {
		t.Error("the same files are another certificate")
	}
	install(first, firstDir)
	if !files.Again() || !files.Current().Leaf.Equal(first.cert) {
		t.Error("files looked at again at once were not loaded")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if got := step(); !got.Leaf.Equal(first.cert) {
		t.Error("a missing file took the certificate away")
	}
}

func TestTrustedFollowsTheRoots(t *testing.T) {
	ca := open(t, t.TempDir(), nil)
	leaf, err := ca.Leaf("localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := Trusted(leaf, roots(ca), time.Now()); err != nil {
		t.Errorf("with its root: %v", err)
	}
	if Trusted(leaf, x509.NewCertPool(), time.Now()) == nil {
		t.Error("trusted without its root")
	}
	if Trusted(leaf, roots(ca), time.Now().Add(2*leafLife)) == nil {
		t.Error("trusted after its end")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
