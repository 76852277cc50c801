package app

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"callbox/static"
)

// Paths of the local authority. They are answered over plain HTTP too: a device can trust it only once it has it.
const (
	pathCA        = "/ca"
	pathCARoot    = "/ca/root.crt"
	pathCAProfile = "/ca/root.mobileconfig"
)

func isAuthorityPath(path string) bool {
	// The page's style and icon come the same way.
	return slices.Contains([]string{pathCA, pathCARoot, pathCAProfile}, path) ||
		slices.Contains([]string{static.Prefix + "style/base.css", static.Prefix + "style/authority.css", static.Prefix + "icon.svg"}, path)
}

// ownAuthority says whether browsers see a certificate of the local authority, and so warn.
func (s *web) ownAuthority() bool {
	_, err := s.authority()
	return err == nil
}

func (s *web) noAuthority(w http.ResponseWriter, r *http.Request) {
	refuse(w, r, s.log, &apiError{Status: http.StatusNotFound, Code: "not-found", Message: errAuthority.Error()})
}

// getCA tells how a device comes to trust the local authority.
func (s *web) getCA(w http.ResponseWriter, r *http.Request) {
	ca, err := s.authority()
	if err != nil {
		s.noAuthority(w, r)
		return
	}
	p := static.AuthorityPage{Name: ca.Name(), Fingerprint: fingerprintGroups(ca.Fingerprint()), System: systemOf(r.UserAgent()), Home: "/"}
	p.Profile = p.System == "ios"
	if c := clientOf(r); !c.Secure && validHost(c.Host) {
		p.Home = "https://" + c.Host + "/"
	}
	page(w, http.StatusOK, s.log, func(w io.Writer) error { return static.Authority(w, p) })
}

// getCARoot is the certificate in PEM, which every system takes.
func (s *web) getCARoot(w http.ResponseWriter, r *http.Request) {
	ca, err := s.authority()
	if err != nil {
		s.noAuthority(w, r)
		return
	}
	w.Header().Set("Content-Disposition", `attachment; filename="root.crt"`)
	s.download(w, "application/x-x509-ca-cert", ca.PEM())
}

// getCAProfile is the certificate as a configuration profile, which is what iPhones and iPads take from a page.
func (s *web) getCAProfile(w http.ResponseWriter, r *http.Request) {
	ca, err := s.authority()
	if err != nil {
		s.noAuthority(w, r)
		return
	}
	block, _ := pem.Decode(ca.PEM())
	profile, err := mobileProfile(ca.Name(), block.Bytes)
	if err != nil {
		s.log.Error("profile not written", logError, err)
		refuse(w, r, s.log, errInternal())
		return
	}
	// As an attachment Safari would file it away instead of offering to install it.
	s.download(w, "application/x-apple-aspen-config", profile)
}

func (s *web) download(w http.ResponseWriter, kind string, content []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(content) // a client that is gone is nobody's fault
}

// fingerprintGroups drops the colons and makes groups of four digits, which break and compare well.
func fingerprintGroups(fingerprint string) []string {
	var out []string
	for group := range slices.Chunk([]byte(strings.ReplaceAll(fingerprint, ":", "")), 4) {
		out = append(out, string(group))
	}
	return out
}

// systemOf guesses which instructions to open from what a browser says of itself.
func systemOf(userAgent string) string {
	for _, known := range []struct{ mark, system string }{
		{"Android", "android"}, {"iPhone", "ios"}, {"iPad", "ios"}, {"Macintosh", "macos"}, {"Windows", "windows"}, {"Linux", "linux"},
	} {
		if strings.Contains(userAgent, known.mark) {
			return known.system
		}
	}
	return ""
}

// mobileProfile is a configuration profile with one root certificate, in DER. The same certificate makes the same profile,
// so that a second one replaces the first.
func mobileProfile(name string, der []byte) ([]byte, error) {
	var escaped bytes.Buffer
	if err := xml.EscapeText(&escaped, []byte(name)); err != nil {
		return nil, fmt.Errorf("name of the authority: %w", err)
	}
	sum := sha256.Sum256(der)
	identifier := func(b []byte) string {
		// A UUID of its own making (RFC 9562 section 5.8).
		u := slices.Clone(b[:16])
		u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
		return fmt.Sprintf("%X-%X-%X-%X-%X", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	}
	text := escaped.String()
	inner, outer := identifier(sum[:16]), identifier(sum[16:])
	return fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>PayloadContent</key><array><dict>
<key>PayloadType</key><string>com.apple.security.root</string>
<key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>callbox.root.%[2]s</string>
<key>PayloadUUID</key><string>%[2]s</string>
<key>PayloadDisplayName</key><string>%[1]s</string>
<key>PayloadContent</key><data>%[4]s</data>
</dict></array>
<key>PayloadType</key><string>Configuration</string>
<key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>callbox.%[3]s</string>
<key>PayloadUUID</key><string>%[3]s</string>
<key>PayloadDisplayName</key><string>%[1]s</string>
<key>PayloadDescription</key><string>Lets this device trust one callbox server.</string>
</dict></plist>
`, text, inner, outer, base64.StdEncoding.EncodeToString(der)), nil
}
