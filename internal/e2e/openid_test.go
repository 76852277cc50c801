package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/chromedp/chromedp"
)

func TestBrowserLogsInAtTheProvider(t *testing.T) {
	at := testkit.NewOpenIDProvider(t)
	at.Login(map[string]any{"sub": "1", "preferred_username": "ada", "name": "Ada Lovelace"}, nil)
	secret := filepath.Join(t.TempDir(), "client-secret")
	if err := os.WriteFile(secret, []byte(at.ClientSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testkit.Serve(t, testkit.Options{Args: []string{
		"--oidc-issuer", at.Issuer(), "--oidc-client-id", at.ClientID, "--oidc-client-secret-file", secret, "--oidc-name", "Example ID",
	}})
	at.Register(s.URL("/login/oidc/callback"))
	ada := &caller{Page: testkit.NewBrowser(t).Page(t, "ada"), t: t, user: "ada"}
	ada.Open(s.URL("/call/tea"))
	// The button is there once the provider has answered.
	ada.Until(20*time.Second, "can log in at the provider", "document.querySelector('#provider') ? true : (location.reload(), false)")
	ada.Do(chromedp.Click(chromedp.CSS("#provider")))
	ada.Until(20*time.Second, "is in the lobby under the name there",
		"location.pathname === '/call/tea' && document.readyState === 'complete' && document.querySelector('#display-name')?.value === 'Ada Lovelace'")
	ada.join(false)

	s.MustCLI("", "user", "remove", "oidc:ada")
	ada.Until(20*time.Second, "is out of the call", "!document.querySelector('#left').hidden")
}
