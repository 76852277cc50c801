package e2e

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/chromedp/chromedp"
)

// invitation is what callbox invite --json prints.
type invitation struct {
	ID  string `json:"id"`
	URL string `json:"url"`
}

func invite(t *testing.T, s *testkit.Server, arguments ...string) (invitation, string) {
	t.Helper()
	var made invitation
	if err := json.Unmarshal([]byte(s.MustCLI("", append([]string{"invite", "--json"}, arguments...)...)), &made); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(made.URL)
	if err != nil || made.ID == "" {
		t.Fatalf("%+v %v", made, err)
	}
	return made, s.URL(u.Path)
}

// comeIn opens a guest link and gives a name.
func comeIn(t *testing.T, page *testkit.Page, link, name, room string) *caller {
	t.Helper()
	c := &caller{Page: page, t: t, user: name}
	c.Open(link)
	c.fill("#name", name)
	c.Do(chromedp.Click(chromedp.CSS("form button[type=submit]")))
	c.Until(20*time.Second, "is in the lobby", "location.pathname === '/call/"+room+"' && document.readyState === 'complete'")
	return c
}

func TestGuestCallsByAnInvite(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	made, link := invite(t, s, "--room", "tea", "--uses", "1")
	b := testkit.NewBrowser(t)
	ada := logIn(t, b.Page(t, "ada"), s.URL(""), "ada", "/call/tea")
	zoe := comeIn(t, b.Page(t, "zoe"), link, "Zoë", "tea")
	ada.join(false)
	zoe.join(false)
	for _, c := range []*caller{ada, zoe} {
		c.connected(1, 30*time.Second, direct)
		c.moving(20 * time.Second)
	}
	ada.Until(10*time.Second, "sees who is a guest", "document.querySelector('.tile[data-peer]:not(.self) .name').textContent === 'Zoë (guest)'")
	zoe.say("no account needed")
	ada.hears("no account needed")

	// One more than the invite has uses is told so.
	eve := &caller{Page: b.Page(t, "eve"), t: t, user: "eve"}
	eve.Open(link)
	eve.Until(10*time.Second, "is refused", "document.body.innerText.includes('used up') && !document.querySelector('#name')")

	// A user makes a guest link in the call.
	ada.MustEval(`Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => { window.copied = text; } } })`, nil)
	ada.MustEval("document.querySelector('#waiting').hidden && document.querySelector('#invite').click()", nil)
	ada.Do(chromedp.Click(chromedp.CSS("#guest-link")))
	ada.Until(10*time.Second, "has a guest link", "!!window.copied")
	var copied string
	ada.MustEval("window.copied", &copied)
	if !strings.Contains(copied, "/invite/") {
		t.Errorf("the link is %q", copied)
	}
	if out := s.MustCLI("", "invite", "list"); !strings.Contains(out, "1 of 1") || !strings.Contains(out, "0 of 8") {
		t.Errorf("the invites are\n%s", out)
	}

	s.MustCLI("", "invite", "remove", made.ID)
	zoe.Until(20*time.Second, "is out of the call", "!document.querySelector('#left').hidden && document.querySelector('#left-text').textContent.includes('invitation')")
	ada.Until(20*time.Second, "is alone", "window.callbox.peers.size === 0")
	zoe.Open(s.URL("/call/tea"))
	if !strings.Contains(zoe.Location(), "/login") {
		t.Errorf("the guest of a removed invite is at %s", zoe.Location())
	}
}
