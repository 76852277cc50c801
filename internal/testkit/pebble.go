package testkit

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Authority is an ACME server (Let's Encrypt's pebble) on loopback that resolves every name to 127.0.0.1.
type Authority struct {
	*Process
	URL  string // of the directory
	Root string // PEM file of the authority that vouches for the server itself; not for what it signs

	t          testing.TB
	management string
	client     *http.Client
}

// AuthorityOptions say where challenges go and how long certificates last.
type AuthorityOptions struct {
	HTTPPort, TLSPort int           // of whoever answers challenges on 127.0.0.1
	Life              time.Duration // of a certificate; 90 days when 0. Who asks for no profile gets either kind
	ShortLife         time.Duration // of one of the profile "shortlived"; 6 days when 0
	Blocked           []string      // names that it does not sign for
}

var buildPebble = sync.OnceValues(func() (string, error) {
	return goBuild("pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble")
})

// ACME starts an authority and returns when it answers.
func ACME(t testing.TB, o AuthorityOptions) *Authority {
	t.Helper()
	binary := build(t, buildPebble)
	if o.Life == 0 {
		o.Life = 90 * 24 * time.Hour
	}
	if o.ShortLife == 0 {
		o.ShortLife = 6 * 24 * time.Hour
	}
	dir := t.TempDir()
	a := &Authority{t: t, Root: filepath.Join(dir, "cert.pem")}
	pool := a.makeCertificate(filepath.Join(dir, "key.pem"))
	a.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool},
	}}
	listen := fmt.Sprintf("127.0.0.1:%d", Port(t, "127.0.0.1"))
	a.management = fmt.Sprintf("127.0.0.1:%d", Port(t, "127.0.0.1"))
	profile := func(life time.Duration) map[string]any {
		return map[string]any{"description": "for tests", "validityPeriod": int(life.Seconds())}
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": a.management,
		"certificate": a.Root, "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": o.HTTPPort, "tlsPort": o.TLSPort, "domainBlocklist": append([]string{}, o.Blocked...),
		"retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": profile(o.Life), "shortlived": profile(o.ShortLife)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-config", path, "-dnsserver", resolver(t))
	cmd.Env = append(cmd.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0", "PEBBLE_WFE_NONCEREJECT=0")
	a.Process = Start(t, "pebble", cmd)
	a.URL = "https://" + listen + "/dir"
	Eventually(t, 30*time.Second, "pebble answers", func() error { _, err := a.get(a.URL); return err })
	return a
}

// Roots returns the authority of the certificates it signs.
func (a *Authority) Roots() *x509.CertPool {
	a.t.Helper()
	text, err := os.ReadFile(a.RootsFile())
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		a.t.Fatalf("no root in %q", text)
	}
	return pool
}

// RootsFile returns a PEM file of it. With SSL_CERT_FILE a process on Linux takes it for the world's.
func (a *Authority) RootsFile() string {
	a.t.Helper()
	text, err := a.get("https://" + a.management + "/roots/0")
	if err != nil {
		a.t.Fatal(err)
	}
	path := filepath.Join(a.t.TempDir(), "roots.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// Orders returns how many orders it has taken.
func (a *Authority) Orders() int { return strings.Count(a.Output(), "orders in the db") }

// Signed returns how many certificates it has made.
func (a *Authority) Signed() int { return strings.Count(a.Output(), "Issued certificate serial") }

// WantRenewal makes it say that a certificate should have been replaced already (RFC 9773 section 4.2).
func (a *Authority) WantRenewal(cert *x509.Certificate) {
	a.t.Helper()
	window, err := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{
		"start": time.Now().Add(-2 * time.Hour).UTC(), "end": time.Now().Add(-time.Hour).UTC(),
	}})
	if err != nil {
		a.t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{
		"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})), "ariResponse": string(window),
	})
	if err != nil {
		a.t.Fatal(err)
	}
	response, err := a.client.Post("https://"+a.management+"/set-renewal-info/", "application/json", bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		a.t.Fatalf("set renewal information: %s", response.Status)
	}
}

func (a *Authority) get(url string) ([]byte, error) {
	response, err := a.client.Get(url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	return io.ReadAll(response.Body)
}

// makeCertificate writes the certificate that the server itself is reached with; it is its own authority.
func (a *Authority) makeCertificate(keyPath string) *x509.CertPool {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pebble"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(
		os.WriteFile(a.Root, cert, 0o600),
		os.WriteFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600),
	); err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

// resolver starts a DNS server that knows every name as 127.0.0.1, except those below "nowhere", and returns its address.
func resolver(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // pebble asks over TCP
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		answer := new(dns.Msg).SetReply(r)
		for _, q := range r.Question {
			switch {
			case strings.HasSuffix(q.Name, ".nowhere."):
				answer.Rcode = dns.RcodeNameError
			case q.Qtype == dns.TypeA:
				answer.Answer = append(answer.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1),
				})
			}
		}
		_ = w.WriteMsg(answer)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	return listener.Addr().String()
}
