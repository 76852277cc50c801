package localca

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// recheck is how often the files are looked at, at most: a handshake pays two stat calls in that time.
const recheck = 2 * time.Second

// Files serves the certificate of two PEM files and follows their changes. It is safe for concurrent use.
type Files struct {
	certPath, keyPath string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	tried   string // the last stamp that was loaded or failed to
	checked time.Time
	err     error // why the files as they are now are not in use
}

// OpenFiles loads a certificate chain and its key. now may be nil.
func OpenFiles(certPath, keyPath string, log *slog.Logger, now func() time.Time) (*Files, error) {
	if now == nil {
		now = time.Now
	}
	f := &Files{certPath: certPath, keyPath: keyPath, log: log, now: now}
	stamp, err := f.look()
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate %s with key %s: %w", certPath, keyPath, err)
	}
	f.current, f.tried, f.checked = &cert, stamp, now()
	return f, nil
}

// GetCertificate is a tls.Config.GetCertificate. A change that does not load leaves the certificate as it was.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.Current(), nil
}

// Again looks at the files at once, and says whether there was another certificate in them.
func (f *Files) Again() bool {
	f.mu.Lock()
	was := f.current
	f.checked, f.tried = time.Time{}, "" // even where nothing shows that they have changed
	f.mu.Unlock()
	return f.Current() != was
}

// Current is the certificate as the files have it now.
func (f *Files) Current() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.Sub(f.checked) >= recheck {
		f.checked = now
		f.follow()
	}
	return f.current
}

// Err says why the files as they are now are not in use; nil: they are.
func (f *Files) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// follow takes over what the files hold, where that has changed since it was tried. f.mu is held.
func (f *Files) follow() {
	stamp, err := f.look()
	if err != nil {
		stamp = "missing"
	}
	if stamp == f.tried {
		return
	}
	f.tried = stamp
	if err != nil {
		f.err = fmt.Errorf("TLS certificate: %w", err)
		f.log.Warn("TLS certificate files are gone; the last certificate is used", "error", err)
		return
	}
	cert, err := tls.LoadX509KeyPair(f.certPath, f.keyPath)
	if err != nil {
		// A renewal that writes two files is seen between them: the second write changes the stamp again.
		f.err = fmt.Errorf("TLS certificate %s with key %s: %w", f.certPath, f.keyPath, err)
		f.log.Warn("TLS certificate files changed and do not load; the last certificate is used", "error", err)
		return
	}
	f.err = nil
	if slices.EqualFunc(cert.Certificate, f.current.Certificate, slices.Equal) {
		return
	}
	f.current = &cert
	f.log.Info("TLS certificate reloaded", "expires", cert.Leaf.NotAfter)
}

// look describes the state of both files.
func (f *Files) look() (string, error) {
	var stamp string
	for _, path := range []string{f.certPath, f.keyPath} {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		stamp += fmt.Sprintf("%d %d;", info.Size(), info.ModTime().UnixNano())
	}
	return stamp, nil
}
