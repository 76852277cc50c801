package localca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	certFile = "ca.crt"
	keyFile  = "ca.key"

	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	// renewBefore is how much of a leaf's life is left when the next one is made.
	renewBefore = leafLife / 3
	// backdate forgives clients whose clock is behind.
	backdate = time.Hour

	maxLeaves = 1024

	// leafName is the subject of every leaf; the host stands in the subject alternative name.
	leafName = "callbox"
)

// ErrDamaged means that the files of the authority cannot be used as they are.
var ErrDamaged = errors.New("local certificate authority")

// errNone means that there is no authority yet, or one that ends before its next leaf would.
var errNone = errors.New("no authority")

// private are the address ranges a local authority may speak for: loopback, RFC 1918, RFC 6598, link-local, ULA.
func private() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
		"::1/128", "fc00::/7", "fe80::/10",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// CA is a certificate authority for this host. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
	// fallback is the name of the leaf for clients that ask for nothing the authority may speak for.
	fallback string
	now      func() time.Time

	mu     sync.Mutex
	leaves map[string]*tls.Certificate // by lower-case name or address
}

// Open loads the authority from dir, or makes it there (files ca.crt and ca.key, mode 0600). names are the DNS names and
// public IP addresses it may speak for when it is made; an authority that exists keeps its own. now may be nil.
func Open(dir string, names []string, now func() time.Time) (*CA, error) {
	if now == nil {
		now = time.Now
	}
	ca, err := load(dir, now)
	if errors.Is(err, errNone) {
		ca, err = create(dir, names, now)
	}
	if err != nil {
		return nil, err
	}
	ca.now = now
	ca.leaves = make(map[string]*tls.Certificate)
	ca.fallback = "localhost"
	return ca, nil
}

// load reads both files, or returns errNone.
func load(dir string, now func() time.Time) (*CA, error) {
	certPath, keyPath := filepath.Join(dir, certFile), filepath.Join(dir, keyFile)
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := os.ReadFile(keyPath)
	switch {
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		return nil, errNone
	case certErr != nil || keyErr != nil:
		return nil, fmt.Errorf("%w: %w; give both files back, or remove both and a new one is made", ErrDamaged, errors.Join(certErr, keyErr))
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %s and %s: %w; give both files back, or remove both and a new one is made", ErrDamaged, certPath, keyPath, err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%w: %s is not the certificate of an authority; remove %s and %s and a new one is made", ErrDamaged, certPath, certPath, keyPath)
	}
	if now().Add(leafLife).After(pair.Leaf.NotAfter) {
		return nil, errNone
	}
	return &CA{cert: pair.Leaf, key: signer, pem: certPEM}, nil
}

// create makes the authority and writes its files, the key first.
func create(dir string, names []string, now func() time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("local authority's key: %w", err)
	}
	host := "this host"
	if len(names) > 0 {
		host = names[0]
	}
	template := &x509.Certificate{
		SerialNumber:                serial(),
		Subject:                     pkix.Name{CommonName: "callbox on " + host, Organization: []string{"callbox local authority"}},
		NotBefore:                   now().Add(-backdate),
		NotAfter:                    now().Add(caLife),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         permittedNames(names),
	}
	for _, p := range permittedRanges(names) {
		template.PermittedIPRanges = append(template.PermittedIPRanges, &net.IPNet{
			IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("local authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("local authority's certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("local authority's key: %w", err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := errors.Join(write(filepath.Join(dir, keyFile), keyPEM), write(filepath.Join(dir, certFile), certPEM)); err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key, pem: certPEM}, nil
}

// permittedNames are the names an authority is constrained to: never the empty list, which would permit every name.
func permittedNames(names []string) []string {
	out := []string{"localhost"}
	seen := map[string]bool{"localhost": true, "": true}
	for _, name := range names {
		name = canonical(name)
		if _, err := netip.ParseAddr(name); err == nil || seen[name] {
			continue
		}
		seen[name] = true
		out = append(out, name)
	}
	return out
}

// permittedRanges are the private ranges, and those of names that are addresses outside them.
func permittedRanges(names []string) []netip.Prefix {
	out := private()
	for _, name := range names {
		addr, err := netip.ParseAddr(canonical(name))
		if err != nil {
			continue
		}
		addr = addr.Unmap().WithZone("")
		if !slices.ContainsFunc(out, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return out
}

// write replaces a file with mode 0600.
func write(path string, data []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("local authority's file: %w", err)
	}
	if err := os.Chmod(temp, 0o600); err != nil {
		return fmt.Errorf("local authority's file: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("local authority's file: %w", err)
	}
	return nil
}

// PEM is the authority's certificate, for people who let their devices trust it.
func (c *CA) PEM() []byte { return c.pem }

// Names are the DNS names that the authority may speak for.
func (c *CA) Names() []string { return c.cert.PermittedDNSDomains }

// Fingerprint is the SHA-256 of the certificate as pairs of hexadecimal digits, the form browsers show.
func (c *CA) Fingerprint() string {
	sum := sha256.Sum256(c.cert.Raw)
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(pairs, ":")
}

// May reports whether the authority may speak for a DNS name or IP address: exactly the names and addresses it was made
// for, and addresses of private ranges.
func (c *CA) May(host string) bool {
	host = canonical(host)
	if addr, err := netip.ParseAddr(host); err == nil {
		ip := net.IP(addr.Unmap().WithZone("").AsSlice())
		return slices.ContainsFunc(c.cert.PermittedIPRanges, func(p *net.IPNet) bool { return p.Contains(ip) })
	}
	for _, name := range c.cert.PermittedDNSDomains {
		if name == host {
			return true
		}
	}
	return false
}

// GetCertificate is a tls.Config.GetCertificate: the leaf for the name that the client asks for, else for the address it
// came to.
func (c *CA) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	host := hello.ServerName
	if host == "" && hello.Conn != nil {
		if tcp, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
			host = tcp.AddrPort().Addr().Unmap().WithZone("").String()
		}
	}
	if !c.May(host) {
		host = c.fallback
	}
	return c.Leaf(host)
}

// Leaf is a certificate for one name or address that the authority may speak for, with the authority's behind it.
func (c *CA) Leaf(host string) (*tls.Certificate, error) {
	host = canonical(host)
	if !c.May(host) {
		return nil, fmt.Errorf("certificate for %q: the local authority may not speak for it", host)
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if leaf, ok := c.leaves[host]; ok && now.Add(renewBefore).Before(leaf.Leaf.NotAfter) {
		return leaf, nil
	}
	leaf, err := c.issue(host, now)
	if err != nil {
		return nil, err
	}
	if len(c.leaves) >= maxLeaves {
		clear(c.leaves)
	}
	c.leaves[host] = leaf
	return leaf, nil
}

func (c *CA) issue(host string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", host, err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		// No host here: OpenSSL takes a common name with dots for a DNS name, which 192.168.1.7 is, and the authority's
		// constraints permit no such name.
		Subject:               pkix.Name{CommonName: leafName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(leafLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		template.IPAddresses = []net.IP{addr.Unmap().WithZone("").AsSlice()}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", host, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, c.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// serial is a random 127 bit number: positive, and shorter than the 20 octets of RFC 5280 section 4.1.2.2.
func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// Name is the common name of the authority.
func (c *CA) Name() string { return c.cert.Subject.CommonName }

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
