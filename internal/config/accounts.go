package config

import (
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// Inviters says who may make guest links on the call page.
type Inviters string

// The values of Inviters.
const (
	InviteUsers  Inviters = "users"
	InviteAdmins Inviters = "admins"
	InviteNobody Inviters = "off"
)

// UnmarshalText parses who may invite.
func (i *Inviters) UnmarshalText(text []byte) error {
	if string(text) == "false" || string(text) == "no" {
		text = []byte(InviteNobody)
	}
	return oneOf(i, text, InviteUsers, InviteAdmins, InviteNobody)
}

// Issuer is the URL of an OpenID provider: https, or http on this machine alone.
type Issuer string

// UnmarshalText checks an issuer; it is compared as it stands.
func (i *Issuer) UnmarshalText(text []byte) error {
	const remedy = "write it as the provider does, as https://id.example/realms/main"
	u, err := url.Parse(string(text))
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fault("is not an issuer", remedy)
	case u.Scheme != "https" && (u.Scheme != "http" || !loopbackName(u.Hostname())):
		return fault("is not an https:// URL", remedy)
	}
	*i = Issuer(text)
	return nil
}

// OIDCRule lets people in whom the OpenID provider has logged in: those with a verified mail address in a domain, or of a
// group.
type OIDCRule struct{ Domain, Group string }

// UnmarshalText parses "@domain" or "group:NAME".
func (r *OIDCRule) UnmarshalText(text []byte) error {
	if domain, ok := strings.CutPrefix(string(text), "@"); ok && hostName(domain) {
		*r = OIDCRule{Domain: strings.ToLower(domain)}
		return nil
	}
	if group, ok := strings.CutPrefix(string(text), "group:"); ok && group != "" {
		*r = OIDCRule{Group: group}
		return nil
	}
	return fault("says of nobody who may log in", "write @example.org for verified mail addresses there, or group:NAME")
}

// MarshalText is the inverse of UnmarshalText.
func (r OIDCRule) MarshalText() ([]byte, error) {
	if r.Group != "" {
		return []byte("group:" + r.Group), nil
	}
	return []byte("@" + r.Domain), nil
}

// loopbackName says whether a host can only be this machine itself.
func loopbackName(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}

// checkAccounts finds the faults of the settings about who may come in.
func checkAccounts(c Config, add func(key, problem, remedy string)) {
	if u, err := url.Parse(string(c.PublicURL)); c.PublicURL != "" && (err != nil || u.Scheme != "https" && !loopbackName(u.Hostname())) {
		add("public-url", "is not an https:// URL", "browsers open a camera on https:// only; write it as https://call.example")
	}
	switch {
	case c.OIDCIssuer != "" && c.OIDCClientID == "":
		add("oidc-issuer", "is given without oidc-client-id", "register callbox at the provider, with the redirect URL https://THIS-SERVER/login/oidc/callback, and give the id that it is assigned")
	case c.OIDCIssuer == "" && c.OIDCClientID != "":
		add("oidc-client-id", "is given without oidc-issuer", "give the provider's URL as well")
	case c.OIDCIssuer == "" && c.OIDCClientSecretFile != "":
		add("oidc-client-secret-file", "is given without oidc-issuer", "give the provider's URL as well")
	}
	if !regexp.MustCompile(`^[^\p{C}]{1,40}$`).MatchString(c.OIDCName) {
		add("oidc-name", "is not a name", "use 1 to 40 characters")
	}
	if len(c.OIDCUsernameClaims) == 0 {
		add("oidc-username-claim", "names no claim", "name one, as preferred_username")
	}
}
