package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
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
	ada.Until(10*time.Second, "sees who is a guest", "(t => t.querySelector('.name').textContent === 'Zoë' && !t.querySelector('.guest').hidden)(document.querySelector('.tile[data-peer]:not(.self)'))")
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

// guestsAreCountedTogether lets more people use an invite at one time, through all nodes, than it lets in, and removes it on
// another node than the one that holds a guest.
func guestsAreCountedTogether(t *testing.T, c *cluster) {
	t.Helper()
	const uses, visitors = 3, 9
	made, _ := invite(t, c.nodes[0], "--room", "hall", "--uses", strconv.Itoa(uses))
	u, err := url.Parse(made.URL)
	if err != nil {
		t.Fatal(err)
	}
	type visit struct {
		status int
		cookie string
		err    error
	}
	visits := make(chan visit, visitors)
	for range visitors {
		client := c.nodes[0].Client()
		go func() {
			response, err := client.Post(c.front+u.Path, "application/x-www-form-urlencoded", strings.NewReader("name=Max"))
			if err != nil {
				visits <- visit{err: err}
				return
			}
			_ = response.Body.Close()
			v := visit{status: response.StatusCode}
			for _, cookie := range response.Cookies() {
				v.cookie = cookie.Name + "=" + cookie.Value
			}
			visits <- v
		}()
	}
	in, out, cookie := 0, 0, ""
	for range visitors {
		switch v := <-visits; {
		case v.err != nil:
			t.Fatal(v.err)
		case v.status == http.StatusSeeOther:
			in, cookie = in+1, v.cookie
		case v.status == http.StatusGone:
			out++
		default:
			t.Errorf("a visitor was answered %d", v.status)
		}
	}
	if in != uses || out != visitors-uses {
		t.Fatalf("%d were let in and %d refused", in, out)
	}
	holder := c.nodes[2]
	testkit.Eventually(t, 10*time.Second, "a guest is known everywhere", func() error {
		for _, node := range c.nodes {
			if got := iceStatus(t, node.URL(""), cookie); got != http.StatusOK {
				return fmt.Errorf("%s: %d", node.Name, got)
			}
			if list := node.MustCLI("", "invite", "list"); !strings.Contains(list, "3 of 3") {
				return fmt.Errorf("%s lists %s", node.Name, list)
			}
		}
		return nil
	})
	guest := connect(t, "guest", entrance{urls: []string{holder.URL("")}, client: holder.Client(), header: http.Header{"Origin": {holder.URL("")}, "Cookie": {cookie}}})
	c.nodes[1].MustCLI("", "invite", "remove", made.ID)
	select {
	case <-guest.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the guest of a removed invite lives on at another node")
	}
	testkit.Eventually(t, 10*time.Second, "the guest is known nowhere", func() error {
		for _, node := range c.nodes {
			if got := iceStatus(t, node.URL(""), cookie); got != http.StatusUnauthorized {
				return fmt.Errorf("%s: %d", node.Name, got)
			}
		}
		return nil
	})
}
