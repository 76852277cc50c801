package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/chromedp/chromedp"
)

func TestFirstRunSetUpLoginAndCall(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	b := testkit.NewBrowser(t)
	ada := &caller{Page: b.Page(t, "ada"), t: t, user: "ada"}
	setup := s.URL(s.SetupLink())
	ada.Open(setup)
	ada.Do(
		chromedp.WaitVisible(chromedp.CSS("#username")),
		chromedp.SendKeys(chromedp.CSS("#username"), "ada"),
		chromedp.SendKeys(chromedp.CSS("#password"), password),
		chromedp.SendKeys(chromedp.CSS("#again"), password),
		chromedp.Click(chromedp.CSS("form button[type=submit]")),
	)
	ada.Until(20*time.Second, "has left the set-up page", "location.pathname !== '/setup' && document.readyState === 'complete'")
	if out := s.MustCLI("", "user", "list"); !regexp.MustCompile(`(?m)^ada\s+yes\b`).MatchString(out) {
		t.Fatalf("the first user is not listed as an administrator: %q", out)
	}

	// The link works once: it makes no second user and shows no form.
	grace := &caller{Page: b.Page(t, "grace"), t: t, user: "grace"}
	grace.Open(setup)
	var form bool
	grace.MustEval("!!document.querySelector('#again')", &form)
	if form {
		t.Error("the used set-up link shows the form again")
	}

	s.AddUser("grace", password)
	logIn(t, grace.Page, s.URL(""), "grace", "/call/first-run")
	grace.join(false)

	// The first user logs out, logs in through the form and finds the home page's way into a room.
	ada.Open(s.URL("/"))
	if strings.Contains(ada.Location(), "/login") {
		ada.fillLogin(password)
		ada.Until(10*time.Second, "is home", "!!document.querySelector('#room')")
	}
	ada.MustEval("document.querySelector('form[action=\"/logout\"] button').click()", nil)
	ada.Until(10*time.Second, "is logged out", "location.pathname === '/login'")
	ada.fillLogin(password)
	ada.fill("#room", "first-run\r")
	ada.Until(20*time.Second, "is in the lobby", "location.pathname === '/call/first-run'")
	ada.join(false)
	ada.connected(1, 30*time.Second, direct)
	grace.connected(1, 30*time.Second, direct)
	ada.moving(20 * time.Second)
	grace.moving(20 * time.Second)

	ada.leave()
	grace.Until(10*time.Second, "is alone", "document.querySelectorAll('.tile[data-peer]:not(.self)').length === 0 && window.callbox.peers.size === 0")
}

func TestRelayOnlyCall(t *testing.T) {
	for _, tc := range []struct {
		name      string
		protocols []string
		turn      string // --turn-url with %d for the port
	}{
		{"every URL", []string{"udp", "tcp"}, ""},
		{"UDP only", []string{"udp"}, "turn:127.0.0.1:%d?transport=udp"},
		{"TCP only", []string{"tcp"}, "turn:127.0.0.1:%d?transport=tcp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := testkit.Options{Port: testkit.Port(t, "127.0.0.1")}
			if tc.turn != "" {
				o.Args = append(o.Args, "--turn-url", fmt.Sprintf(tc.turn, o.Port))
			}
			s := testkit.Serve(t, o)
			relayCall(t, s, testkit.NewBrowser(t), tc.protocols...)
		})
	}
}

// relayCall takes two users through a relayed call: media both ways, chat both ways.
func relayCall(t *testing.T, s *testkit.Server, b *testkit.Browser, protocols ...string) (*caller, *caller) {
	t.Helper()
	ada, grace := pair(t, s, b, "relayed")
	ada.join(true)
	grace.join(true)
	for _, c := range []*caller{ada, grace} {
		c.connected(1, 40*time.Second, relayed(protocols...))
		c.moving(20 * time.Second)
	}
	ada.say("can you <b>hear</b> me?")
	grace.hears("can you <b>hear</b> me?")
	grace.say("loud and clear")
	ada.hears("loud and clear")
	return ada, grace
}

func TestCallByAnyPathIsDirectHere(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	ada, grace := pair(t, s, testkit.NewBrowser(t), "any-path")
	ada.join(false)
	grace.join(false)
	for _, c := range []*caller{ada, grace} {
		c.connected(1, 30*time.Second, direct)
		c.moving(20 * time.Second)
	}
	// What one mutes, the other sees.
	ada.Do(chromedp.Click(chromedp.CSS("#camera")))
	grace.Until(10*time.Second, "sees that the camera is off",
		"(() => { const v = document.querySelector('.tile[data-peer]:not(.self) video'); const a = v.getVideoPlaybackQuality().totalVideoFrames; return new Promise((r) => setTimeout(() => r(v.getVideoPlaybackQuality().totalVideoFrames - a < 5), 1000)); })()")
}

func TestDirectCallOutlivesTheServer(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	ada, grace := pair(t, s, testkit.NewBrowser(t), "restart")
	ada.join(false)
	grace.join(false)
	for _, c := range []*caller{ada, grace} {
		c.connected(1, 30*time.Second, direct)
	}
	s.Kill()
	for _, c := range []*caller{ada, grace} {
		c.Until(20*time.Second, "says that it reconnects", "!document.querySelector('#banner').hidden")
		c.moving(20 * time.Second)
	}
	s.Restart()
	for _, c := range []*caller{ada, grace} {
		c.Until(40*time.Second, "has reconnected", "document.querySelector('#banner').hidden")
		c.connected(1, 30*time.Second, direct)
		c.moving(20 * time.Second)
	}
	ada.say("still here")
	grace.hears("still here")
}

func TestRelayedCallComesBackAfterARestart(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	ada, grace := relayCall(t, s, testkit.NewBrowser(t), "udp", "tcp")
	s.Stop()
	for _, c := range []*caller{ada, grace} {
		c.Until(20*time.Second, "says that it reconnects", "!document.querySelector('#banner').hidden")
	}
	s.Restart()
	for _, c := range []*caller{ada, grace} {
		c.Until(60*time.Second, "has reconnected", "document.querySelector('#banner').hidden")
		c.connected(1, 60*time.Second, relayed("udp", "tcp"))
		c.moving(60 * time.Second)
	}
	grace.say("back again")
	ada.hears("back again")
}

func TestCallByName(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{})
	s.AddUser("ada", password)
	s.AddUser("grace", password)
	b := testkit.NewBrowser(t)
	grace := logIn(t, b.Page(t, "grace"), s.URL(""), "grace", "/")
	ada := logIn(t, b.Page(t, "ada"), s.URL(""), "ada", "/")
	for _, c := range []*caller{ada, grace} {
		c.Until(20*time.Second, "is connected", "window.callbox.state === 'open'")
	}
	call := func(name string) {
		ada.fill("#person", name+"\r")
	}
	// A name that nobody has and a user who is not there sound the same.
	call("nobody")
	ada.Until(10*time.Second, "is told that nobody is there", "document.querySelector('#person-status').textContent.includes('nobody is not here')")

	call("grace")
	grace.Do(chromedp.WaitVisible(chromedp.CSS("#ring-decline")), chromedp.Click(chromedp.CSS("#ring-decline")))
	ada.Until(10*time.Second, "is told of the refusal", "/cannot|declined/.test(document.querySelector('#person-status').textContent)")

	call("grace")
	grace.Do(chromedp.WaitVisible(chromedp.CSS("#ring-accept")), chromedp.Click(chromedp.CSS("#ring-accept")))
	for _, c := range []*caller{ada, grace} {
		c.Until(10*time.Second, "is in the lobby", "location.pathname.startsWith('/call/') && document.readyState === 'complete'")
		c.join(false)
	}
	for _, c := range []*caller{ada, grace} {
		c.connected(1, 30*time.Second, direct)
	}
}
