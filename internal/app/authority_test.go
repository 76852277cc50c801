package app

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"callbox/internal/config"
)

func TestDevicesGetTheLocalAuthorityByPlainHTTP(t *testing.T) {
	r := serve(t, nil)
	h := r.web.handler()
	far := "192.168.1.20:5000"
	if got := record(h, "GET", far, "/login"); got.StatusCode != http.StatusTemporaryRedirect {
		t.Fatalf("a page of a neighbour by plain HTTP: %d", got.StatusCode)
	}
	ask := func(path string, header ...string) (kind, text string) {
		t.Helper()
		resp := record(h, "GET", far, path, header...)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", path, resp.StatusCode)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Get("Content-Type"), string(body)
	}
	kind, root := ask(pathCARoot)
	if kind != "application/x-x509-ca-cert" || root != string(r.certs.ca.PEM()) {
		t.Errorf("root: %s %q", kind, root)
	}
	kind, profile := ask(pathCAProfile)
	data := regexp.MustCompile(`<data>(.*)</data>`).FindStringSubmatch(profile)
	if kind != "application/x-apple-aspen-config" || data == nil || xml.Unmarshal([]byte(profile), new(struct{})) != nil {
		t.Fatalf("profile: %s %q", kind, profile)
	}
	der, err := base64.StdEncoding.DecodeString(data[1])
	if err != nil {
		t.Fatal(err)
	}
	if cert, err := x509.ParseCertificate(der); err != nil || !cert.IsCA {
		t.Errorf("the profile's certificate: %v", err)
	}
	_, page := ask(pathCA, "User-Agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)")
	for _, want := range []string{r.certs.ca.Name(), "<details open>\n<summary>iPhone", fingerprintGroups(r.certs.ca.Fingerprint())[0], "https://192.168.1.7:8080/"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	for _, path := range regexp.MustCompile(`(?:href|src)="(/static/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		ask(path[1])
	}
	if login := r.get(r.browser(), "/login").Body; !strings.Contains(login, `href="/ca"`) {
		t.Error("the login page does not lead there")
	}
}

func TestServerWithOtherCertificatesHasNoAuthorityToOffer(t *testing.T) {
	cert, key, _ := ownCertificate(t, "call.example")
	r := serve(t, func(c *config.Config) { c.TLSCert, c.TLSKey = cert, key })
	for _, path := range []string{pathCA, pathCARoot, pathCAProfile} {
		if got := r.get(r.browser(), path); got.Status != http.StatusNotFound || got.code() != "not-found" {
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
	}
	if strings.Contains(r.get(r.browser(), "/login").Body, `href="/ca"`) {
		t.Error("the login page leads to it all the same")
	}
}

func TestSystemIsKnownByTheBrowsersWord(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (Linux; Android 15; Pixel 8) Chrome/130":           "android",
		"Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X)":                 "ios",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/17":    "macos",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/131.0":       "windows",
		"Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko Firefox/131.0": "linux",
		"": "",
	} {
		if got := systemOf(agent); got != want {
			t.Errorf("%q: %q", agent, got)
		}
	}
}

func TestHTTPListenSendsPeopleToTheOnePort(t *testing.T) {
	r := serve(t, func(c *config.Config) { c.HTTPListen = c.Listen })
	base := "http://" + r.redirect.cfg.Listener.Addr().String()
	got := r.get(r.browser(), base+"/call/room?x=1", "Host", "call.example:80")
	want := "https://" + hostPort("call.example", int(r.Addr().Port())) + "/call/room?x=1"
	if got.Status != http.StatusTemporaryRedirect || got.Header.Get("Location") != want {
		t.Errorf("%d to %q, want %q", got.Status, got.Header.Get("Location"), want)
	}
	if got := r.do(r.browser(), "POST", base+"/login", "x", "Host", "call.example"); got.Status != http.StatusForbidden || got.code() != "https-required" {
		t.Errorf("POST: %d %s", got.Status, got.Body)
	}
	if got := r.get(r.browser(), base+challengePath+"token", "Host", "call.example"); got.Status != http.StatusTemporaryRedirect {
		t.Errorf("a challenge that nobody waits for: %d", got.Status)
	}
}
