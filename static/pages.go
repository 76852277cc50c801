package static

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io"
)

//go:embed templates/*.html
var templateFiles embed.FS

// pages is parsed once and only read afterwards. A page is the layout with the
// blocks of its own file in it.
var pages = parsePages("login", "setup", "invite", "home", "call", "error", "phone", "authority")

// ContentSecurityPolicy is the Content-Security-Policy header that every page
// is served with. Nothing is inline, nothing comes from another origin, and the
// page's scripts cannot turn text into markup.
const ContentSecurityPolicy = "default-src 'none'; " +
	"script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; media-src 'self' blob:; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// LoginPage is the form that POSTs next, username and password to /login.
type LoginPage struct {
	Next     string         // local path to go to afterwards
	Username string         // what was typed before, or ""
	Error    string         // why the last attempt failed, or ""
	Own      bool           // the certificate is of the server's own authority, so that browsers warn
	Provider *LoginProvider // nil: none
}

// AuthorityPage tells how a device comes to trust the server's own authority.
type AuthorityPage struct {
	Name        string   // of the authority
	Fingerprint []string // SHA-256 of its certificate, in groups of digits
	System      string   // the device's: android, ios, macos, windows, linux or ""
	Profile     bool     // it takes a configuration profile rather than a certificate
	Home        string   // URL of the server
}

// LoginProvider is another place to log in at.
type LoginProvider struct {
	Name string
	Path string // local path that leads there
	Down bool   // it cannot be used at the moment
}

// SetupPage is the form that POSTs token, username, password and again to
// /setup, and so makes the first user.
type SetupPage struct {
	Token    string // from the set-up link
	Username string // what was typed before, or ""
	Error    string // why the last attempt failed, or ""
}

// InvitePage is the form that POSTs name to the address of the page itself,
// which is that of the invite, and so lets a guest in.
type InvitePage struct {
	Room  string
	Name  string // what was typed before, or ""
	Error string // why the last attempt failed, or ""
}

// HomePage starts or joins a room and calls users by name.
type HomePage struct {
	User    string // who is logged in
	Admin   bool
	Invites bool // may make guest links
	// Own says that the certificate is of the server's own authority, so that browsers warn.
	Own bool
}

// CallPage is the call itself.
type CallPage struct {
	Config CallConfig
}

// CallConfig is embedded in the call page as JSON.
type CallConfig struct {
	User     string `json:"user"`     // login name
	Name     string `json:"name"`     // display name to start with
	Room     string `json:"room"`     // room to join
	ICE      any    `json:"ice"`      // iceServers, ttlSeconds, expiresAt as /api/v1/ice-servers answers them
	MaxPeers int    `json:"maxPeers"` // people in one call, oneself included; 0: 8
	Version  string `json:"version"`  // of the server
	Link     string `json:"link"`     // URL of this page as others reach it
	Guest    bool   `json:"guest"`    // a guest, who has no other page
	Invites  bool   `json:"invites"`  // may make guest links
}

// PhonePage tries this server from where a phone is.
type PhonePage struct {
	Config PhoneConfig
}

// PhoneConfig is embedded in the page as JSON.
type PhoneConfig struct {
	STUN       string `json:"stun"` // URLs, one for each way
	UDP        string `json:"udp"`
	TCP        string `json:"tcp"`
	TLS        string `json:"tls"`
	Username   string `json:"username"` // for the last three
	Credential string `json:"credential"`
}

// ErrorPage says what went wrong.
type ErrorPage struct {
	Status int // HTTP status code
	Title  string
	Text   string // one or two sentences, with the remedy where there is one
}

// Login writes the login page.
func Login(w io.Writer, p LoginPage) error { return render(w, "login", p) }

// Setup writes the page that makes the first user.
func Setup(w io.Writer, p SetupPage) error { return render(w, "setup", p) }

// Invite writes the page that a guest link opens.
func Invite(w io.Writer, p InvitePage) error { return render(w, "invite", p) }

// Home writes the page one sees after logging in.
func Home(w io.Writer, p HomePage) error { return render(w, "home", p) }

// Call writes the call page.
func Call(w io.Writer, p CallPage) error {
	if p.Config.MaxPeers == 0 {
		p.Config.MaxPeers = 8
	}
	return render(w, "call", p)
}

// Phone writes the page that tries this server from outside.
func Phone(w io.Writer, p PhonePage) error { return render(w, "phone", p) }

// Authority writes the page that tells how a device comes to trust the server's own authority.
func Authority(w io.Writer, p AuthorityPage) error { return render(w, "authority", p) }

// Error writes a page that says what went wrong.
func Error(w io.Writer, p ErrorPage) error { return render(w, "error", p) }

func parsePages(names ...string) map[string]*template.Template {
	all := make(map[string]*template.Template, len(names))
	for _, name := range names {
		all[name] = template.Must(template.New("layout.html").ParseFS(templateFiles,
			"templates/layout.html", "templates/parts.html", "templates/"+name+".html"))
	}
	return all
}

// render writes a page whole or not at all, so that the caller can still answer
// with an error.
func render(w io.Writer, name string, data any) error {
	var page bytes.Buffer
	if err := pages[name].Execute(&page, data); err != nil {
		return fmt.Errorf("%s page: %w", name, err)
	}
	if _, err := page.WriteTo(w); err != nil {
		return fmt.Errorf("%s page: %w", name, err)
	}
	return nil
}
