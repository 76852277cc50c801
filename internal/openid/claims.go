package openid

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// claims are what a provider says of a person.
type claims map[string]json.RawMessage

// text is a claim that is a text, or "".
func (c claims) text(name string) string {
	var s string
	if json.Unmarshal(c[name], &s) != nil {
		return ""
	}
	return s
}

// list is a claim that is a list of texts, or one.
func (c claims) list(name string) []string {
	var many []string
	if json.Unmarshal(c[name], &many) == nil {
		return many
	}
	if one := c.text(name); one != "" {
		return []string{one}
	}
	return nil
}

// verified says what the provider says of the mail address: that it is the person's, that it need not be, or nothing. Some
// write the answer as a text.
func (c claims) verified() (yes, no bool) {
	switch strings.Trim(string(c["email_verified"]), `"`) {
	case "true":
		return true, false
	case "false":
		return false, true
	}
	return false, false
}

// username is the first of the claims that is there. A mail address that need not be the person's is none.
func (c claims) username(names []string) string {
	for _, name := range names {
		if _, unverified := c.verified(); name == "email" && unverified {
			continue
		}
		if text := c.text(name); text != "" {
			return text
		}
	}
	return ""
}

// allowed says whether any rule lets the person in.
func (c claims) allowed(rules []Rule) bool {
	if len(rules) == 0 {
		return true
	}
	_, domain, _ := strings.Cut(c.text("email"), "@")
	verified, _ := c.verified()
	groups := c.list("groups")
	for _, r := range rules {
		if r.Domain != "" && verified && strings.EqualFold(domain, r.Domain) {
			return true
		}
		for _, g := range groups {
			if r.Group != "" && g == r.Group {
				return true
			}
		}
	}
	return false
}

// person reads an ID token that was verified. What it lacks is asked for at the UserInfo endpoint, where some providers say
// everything but the subject.
func (p *Provider) person(ctx context.Context, d *discovered, id *oidc.IDToken, token *oauth2.Token) (Person, error) {
	var c claims
	if err := id.Claims(&c); err != nil {
		return Person{}, fmt.Errorf("%w: %s", ErrInvalid, clip(err))
	}
	if id.Subject == "" {
		return Person{}, fmt.Errorf("%w: it has no subject", ErrInvalid)
	}
	// Who the token was made for, where it is for several (OpenID Connect Core, section 3.1.3.7).
	if azp, given := c["azp"]; (given || len(id.Audience) > 1) && c.text("azp") != p.cfg.ClientID {
		return Person{}, fmt.Errorf("%w: it was made for the client %.64q", ErrInvalid, azp)
	}
	if (c.username(p.cfg.UsernameClaims) == "" || !c.allowed(p.cfg.Allow)) && d.provider.UserInfoEndpoint() != "" {
		if err := p.more(ctx, d, id, token, c); err != nil {
			return Person{}, err
		}
	}
	if !c.allowed(p.cfg.Allow) {
		return Person{}, ErrNotAllowed
	}
	out := Person{Issuer: p.cfg.Issuer, Subject: id.Subject, Username: c.username(p.cfg.UsernameClaims), Name: c.text("name")}
	if out.Username == "" {
		return Person{}, fmt.Errorf("%w: none of %s", ErrNoName, strings.Join(p.cfg.UsernameClaims, ", "))
	}
	return out, nil
}

// more adds the claims of the UserInfo endpoint that the ID token has not.
func (p *Provider) more(ctx context.Context, d *discovered, id *oidc.IDToken, token *oauth2.Token, c claims) error {
	info, err := d.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return fmt.Errorf("%w: user information: %s", ErrUnreachable, clip(err))
	}
	if info.Subject != id.Subject {
		return fmt.Errorf("%w: the user information is somebody else's", ErrInvalid)
	}
	var further claims
	if err := info.Claims(&further); err != nil {
		return fmt.Errorf("%w: %s", ErrInvalid, clip(err))
	}
	// An address and whether it is verified go together.
	if _, there := c["email"]; there {
		delete(further, "email_verified")
	} else {
		delete(c, "email_verified")
	}
	for name, value := range further {
		if _, there := c[name]; !there {
			c[name] = value
		}
	}
	return nil
}
