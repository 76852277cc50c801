package app

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"callbox/internal/certs"
	"callbox/internal/config"
	"callbox/internal/datadir"
)

// maxPEM bounds a file of certificates or a key, in bytes.
const maxPEM = 1 << 20

// CheckFiles finds every fault of the files that a server's settings name, before anything is opened or made. It is a
// config.Sources.Check.
func CheckFiles(cfg config.Config) config.Faults {
	return slices.Concat(CheckSecrets(cfg), checkOpenID(cfg), checkCertificate(cfg), checkACME(cfg))
}

// CheckSecrets does it for the secret files alone, for who serves no TLS, and for a reload: a certificate that is being
// renewed at that moment leaves the last one in use.
func CheckSecrets(cfg config.Config) config.Faults {
	var faults config.Faults
	for _, setting := range []struct{ key, path string }{
		{"turn-secret-file", cfg.TURNSecretFile}, {"cluster-secret-file", cfg.ClusterSecretFile},
	} {
		if setting.path == "" {
			continue
		}
		_, err := datadir.ReadSecrets(setting.path)
		var file *datadir.FileError
		if errors.As(err, &file) {
			faults = append(faults, config.Fault{Key: setting.key, Value: file.Where(), Problem: file.Problem, Remedy: file.Remedy})
		}
	}
	return faults
}

func checkCertificate(cfg config.Config) config.Faults {
	var faults config.Faults
	add := func(key, path, problem, remedy string) {
		faults = append(faults, config.Fault{Key: key, Value: path, Problem: problem, Remedy: remedy})
	}
	chain, problem := readPEM(cfg.TLSCert, certificateProblem)
	if problem != "" {
		add("tls-cert", cfg.TLSCert, problem, "give a PEM file with the certificate and, after it, those between it and the authority")
	}
	key, problem := readPEM(cfg.TLSKey, keyProblem)
	if problem != "" {
		add("tls-key", cfg.TLSKey, problem, "give a PEM file with the private key of the certificate")
	}
	if chain == nil || key == nil {
		return faults
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		add("tls-key", cfg.TLSKey, "is not the key of the certificate "+cfg.TLSCert, "give a certificate and the key that it was made for")
	}
	return faults
}

// checkACME finds what no public authority would sign, and a root that cannot be read.
func checkACME(cfg config.Config) config.Faults {
	var faults config.Faults
	if _, problem := readPEM(cfg.ACMECARoot, certificateProblem); problem != "" {
		faults = append(faults, config.Fault{Key: "acme-ca-root", Value: cfg.ACMECARoot, Problem: problem, Remedy: "give a PEM file with the certificate of the authority that vouches for the ACME server"})
	}
	if cfg.ACMECA != "" {
		return faults
	}
	for _, name := range cfg.Domains {
		if !certs.Public(name) {
			faults = append(faults, config.Fault{
				Key: "domain", Value: name, Problem: "is not a public name or address, and no public authority signs it",
				Remedy: "give one that the world knows, or name a private authority with --acme-ca; without --domain the server has an authority of its own",
			})
		}
	}
	return faults
}

// readPEM reads a file and judges it. The problem is the rest of a sentence about the file; there is no text where there is
// one, or no path.
func readPEM(path string, judge func([]byte) string) (text []byte, problem string) {
	if path == "" {
		return nil, ""
	}
	text, err := readRegular(path)
	var system *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "does not exist"
	case errors.Is(err, fs.ErrPermission):
		return nil, "may not be read by this user"
	case errors.As(err, &system):
		return nil, "cannot be read: " + system.Err.Error()
	case err != nil:
		return nil, err.Error()
	}
	if problem := judge(text); problem != "" {
		return nil, problem
	}
	return text, ""
}

// readRegular does not open what is no file: a pipe would be waited for.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(text) > maxPEM {
		err = fmt.Errorf("is longer than %d bytes", maxPEM)
	}
	return text, err
}

func certificateProblem(text []byte) string {
	found := false
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "holds a damaged certificate"
		}
		found = true
	}
	if !found {
		return "holds no certificate in PEM form"
	}
	return ""
}

func keyProblem(text []byte) string {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type != "PRIVATE KEY" && !strings.HasSuffix(block.Type, " PRIVATE KEY"):
			continue
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return "holds a key that is locked with a passphrase"
		}
		_, pkcs8 := x509.ParsePKCS8PrivateKey(block.Bytes)
		_, pkcs1 := x509.ParsePKCS1PrivateKey(block.Bytes)
		_, sec1 := x509.ParseECPrivateKey(block.Bytes)
		if pkcs8 != nil && pkcs1 != nil && sec1 != nil {
			return "holds a damaged key"
		}
		return ""
	}
	return "holds no private key in PEM form"
}
