package static

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
)

const hostile = `"><script>alert(1)</script><b onclick='x'>&</script>`

func everyPage(text string) map[string]func(io.Writer) error {
	return map[string]func(io.Writer) error{
		"authority": func(w io.Writer) error {
			return Authority(w, AuthorityPage{Name: text, Fingerprint: []string{text}, System: "ios", Profile: true, Home: "/"})
		},
		"login": func(w io.Writer) error {
			return Login(w, LoginPage{Next: text, Username: text, Error: text, Own: true, Provider: &LoginProvider{Name: text, Path: "/login/oidc?next=x"}})
		},
		"setup":  func(w io.Writer) error { return Setup(w, SetupPage{Token: text, Username: text, Error: text}) },
		"invite": func(w io.Writer) error { return Invite(w, InvitePage{Room: text, Name: text, Error: text}) },
		"home":   func(w io.Writer) error { return Home(w, HomePage{User: text, Admin: true, Own: true}) },
		"call": func(w io.Writer) error {
			return Call(w, CallPage{Config: CallConfig{User: text, Name: text, Room: text}})
		},
		"phone": func(w io.Writer) error {
			return Phone(w, PhonePage{Config: PhoneConfig{STUN: text, UDP: text, TCP: text, TLS: text, Username: text, Credential: text}})
		},
		"error": func(w io.Writer) error { return Error(w, ErrorPage{Status: 404, Title: text, Text: text}) },
	}
}

func page(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPagesEscapeWhatTheyShow(t *testing.T) {
	for name, write := range everyPage(hostile) {
		html := page(t, write)
		if strings.Contains(html, "<script>") || strings.Contains(html, "<b onclick") {
			t.Errorf("%s: markup came through", name)
		}
		if !strings.Contains(html, "alert(1)") {
			t.Errorf("%s: the text is not shown at all", name)
		}
	}
}

// The policy refuses inline scripts and styles, so a page that has any would be
// broken in a browser only.
func TestPagesKeepToTheirPolicy(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|javascript:|<script(?:\s+type="module")?\s*>`)
	outside := regexp.MustCompile(`(?i)(?:src|href|action)="(?:[a-z]+:)?//`)
	for name, write := range everyPage("ada") {
		html := page(t, write)
		if found := inline.FindString(html); found != "" {
			t.Errorf("%s: inline %q", name, found)
		}
		if found := outside.FindString(html); found != "" {
			t.Errorf("%s: leads outside: %q", name, found)
		}
	}
	for _, forbidden := range []string{"unsafe", "*", "http"} {
		if strings.Contains(ContentSecurityPolicy, forbidden) {
			t.Errorf("policy contains %q", forbidden)
		}
	}
}

func TestEveryFieldHasALabelAndEveryButtonAName(t *testing.T) {
	fields := regexp.MustCompile(`<(?:input|select)\b[^>]*>`)
	buttons := regexp.MustCompile(`(?s)<button\b([^>]*)>(.*?)</button>`)
	id := regexp.MustCompile(`\bid="([^"]+)"`)
	tags := regexp.MustCompile(`(?s)<[^>]*>`)
	for name, write := range everyPage("ada") {
		html := page(t, write)
		for _, field := range fields.FindAllString(html, -1) {
			if strings.Contains(field, `type="hidden"`) {
				continue
			}
			match := id.FindStringSubmatch(field)
			if match == nil {
				t.Errorf("%s: no id: %s", name, field)
				continue
			}
			wrapped := strings.Contains(html, `<label class="check">`+field)
			if !wrapped && !strings.Contains(html, `for="`+match[1]+`"`) {
				t.Errorf("%s: no label for %s", name, match[1])
			}
		}
		for _, button := range buttons.FindAllStringSubmatch(html, -1) {
			text := strings.TrimSpace(tags.ReplaceAllString(button[2], ""))
			if text == "" && !strings.Contains(button[1], "aria-label=") {
				t.Errorf("%s: a button without a name: %s", name, button[1])
			}
		}
	}
}

func TestCallPageEmbedsItsConfiguration(t *testing.T) {
	want := CallConfig{User: "ada", Name: "Ada </script>", Room: `tea & "cake"`, Version: "1", ICE: map[string]any{
		"iceServers": []any{map[string]any{"urls": []any{"turn:192.0.2.1:8080?transport=udp"}, "username": "1:a.b", "credential": "a+b/c="}},
		"ttlSeconds": 3600.0,
	}}
	html := page(t, func(w io.Writer) error { return Call(w, CallPage{Config: want}) })
	match := regexp.MustCompile(`(?s)<script type="application/json" id="config">(.*?)</script>`).FindStringSubmatch(html)
	if match == nil {
		t.Fatal("no configuration in the page")
	}
	var got CallConfig
	if err := json.Unmarshal([]byte(match[1]), &got); err != nil {
		t.Fatalf("%v: %s", err, match[1])
	}
	if got.Name != want.Name || got.Room != want.Room || got.User != want.User {
		t.Errorf("got %+v", got)
	}
	if got.MaxPeers != 8 {
		t.Errorf("maxPeers %d, want 8 by default", got.MaxPeers)
	}
	ice, _ := json.Marshal(got.ICE)
	expected, _ := json.Marshal(want.ICE)
	if !bytes.Equal(ice, expected) {
		t.Errorf("ice %s, want %s", ice, expected)
	}
}

func TestFormsPostWhatTheServerReads(t *testing.T) {
	for name, wants := range map[string][]string{
		"login": {`action="/login"`, `name="next"`, `name="username"`, `name="password"`, `class="error"`},
		"setup": {`action="/setup"`, `name="token"`, `name="username"`, `name="password"`, `name="again"`, `class="error"`},
		"home":  {`action="/logout"`, `id="room"`},
		"call": {`id="lobby"`, `id="preview"`, `id="camera-select"`, `id="microphone-select"`, `id="display-name"`, `id="relay-only"`,
			`id="join"`, `id="call"`, `id="mic"`, `id="camera"`, `id="screen"`, `id="chat-toggle"`, `id="leave"`, `id="chat-log"`,
			`id="chat-input"`, `id="chat-form"`, `id="banner"`, `id="copy-link"`, `id="status"`},
	} {
		html := page(t, everyPage("ada")[name])
		for _, want := range wants {
			if !strings.Contains(html, want) {
				t.Errorf("%s: no %s", name, want)
			}
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestPageReportsAFailedWrite(t *testing.T) {
	if err := Error(brokenWriter{}, ErrorPage{Status: 500}); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("error %v, want %v", err, io.ErrClosedPipe)
	}
}

func FuzzCallPage(f *testing.F) {
	f.Add("tea", "ada")
	f.Add(hostile, hostile)
	f.Fuzz(func(t *testing.T, room, name string) {
		html := page(t, func(w io.Writer) error {
			return Call(w, CallPage{Config: CallConfig{Room: room, Name: name, User: name}})
		})
		if n := strings.Count(html, "<script"); n != 2 {
			t.Fatalf("%d script elements, want 2", n)
		}
	})
}
