package config

import (
	"slices"
	"strings"
	"testing"
)

func TestAccountSettingsParse(t *testing.T) {
	c, _ := load(t, Sources{Environ: []string{
		"CALLBOX_OIDC_ISSUER=https://id.example/realms/Main/", "CALLBOX_OIDC_CLIENT_ID=callbox", "CALLBOX_OIDC_ALLOW=@X.example group:staff",
		"CALLBOX_OIDC_NAME=Büro & Co", "CALLBOX_PUBLIC_URL=https://Call.example:443/", "CALLBOX_GUEST_INVITES=admins",
	}})
	if c.OIDCIssuer != "https://id.example/realms/Main/" || c.OIDCName != "Büro & Co" || c.PublicURL != "https://call.example" || c.GuestInvites != InviteAdmins {
		t.Errorf("got %+v", c)
	}
	if want := []OIDCRule{{Domain: "x.example"}, {Group: "staff"}}; !slices.Equal(c.OIDCAllow, want) {
		t.Errorf("rules %+v", c.OIDCAllow)
	}
	for _, local := range []string{"http://localhost:9000", "http://127.0.0.1:9000/x", "http://[::1]:9000"} {
		load(t, Sources{Flags: map[string][]string{"oidc-issuer": {local}, "oidc-client-id": {"x"}, "public-url": {"http://localhost:8080"}}})
	}
}

func TestAccountSettingsThatCannotWorkAreFaults(t *testing.T) {
	for name, c := range map[string]struct {
		flags map[string][]string
		says  string
	}{
		"issuer in the open":  {map[string][]string{"oidc-issuer": {"http://id.example"}, "oidc-client-id": {"x"}}, "https://"},
		"issuer with a query": {map[string][]string{"oidc-issuer": {"https://id.example/?a=b"}, "oidc-client-id": {"x"}}, "issuer"},
		"issuer with a user":  {map[string][]string{"oidc-issuer": {"https://a:b@id.example"}, "oidc-client-id": {"x"}}, "issuer"},
		"no client":           {map[string][]string{"oidc-issuer": {"https://id.example"}}, "/login/oidc/callback"},
		"no issuer":           {map[string][]string{"oidc-client-id": {"x"}}, "oidc-issuer"},
		"a secret for nobody": {map[string][]string{"oidc-client-secret-file": {"x"}}, "oidc-issuer"},
		"a rule for nobody":   {map[string][]string{"oidc-allow": {"staff"}}, "group:NAME"},
		"a rule for all":      {map[string][]string{"oidc-allow": {"@"}}, "group:NAME"},
		"no group":            {map[string][]string{"oidc-allow": {"group:"}}, "group:NAME"},
		"a long name":         {map[string][]string{"oidc-name": {strings.Repeat("x", 41)}}, "40"},
		"no claim":            {map[string][]string{"oidc-username-claim": {","}}, "preferred_username"},
		"links in the open":   {map[string][]string{"public-url": {"http://call.example"}}, "https://"},
		"links to a page":     {map[string][]string{"public-url": {"https://call.example/x"}}, "origin"},
		"somebody invites":    {map[string][]string{"guest-invites": {"somebody"}}, "admins"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Load(Sources{Flags: c.flags}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}
