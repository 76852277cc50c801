package cli

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"
)

// TestPublicAuthoritiesAreCompiledIn runs itself once more on a system without certificate authorities.
func TestPublicAuthoritiesAreCompiledIn(t *testing.T) {
	if os.Getenv("TEST_NO_ROOTS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		empty := t.TempDir()
		cmd.Env = append(os.Environ(), "TEST_NO_ROOTS=1", "SSL_CERT_FILE="+empty+"/none", "SSL_CERT_DIR="+empty)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	if pool.Equal(x509.NewCertPool()) {
		t.Error("there is no authority")
	}
}
