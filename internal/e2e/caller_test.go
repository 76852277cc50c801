package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/chromedp/chromedp"
)

const password = "correct horse battery"

// caller is one user with a browser page.
type caller struct {
	*testkit.Page
	t    *testing.T
	user string
}

// link is what a page tells about its connection to one other peer.
type link struct {
	Peer       string `json:"peer"`
	State      string `json:"state"`      // connectionState
	Local      string `json:"local"`      // candidate type of the selected pair's own side
	Remote     string `json:"remote"`     // and of the other side
	Protocol   string `json:"protocol"`   // how the own relay is reached: udp, tcp or tls
	RelayURL   string `json:"relayURL"`   // which server gave the own relay
	Address    string `json:"address"`    // the own side's address
	Frames     int    `json:"frames"`     // video frames decoded so far
	Audio      int    `json:"audio"`      // audio packets received so far
	Path       string `json:"path"`       // what the page shows
	Connection string `json:"connection"` // iceConnectionState
}

const linksScript = `(async () => {
  const out = [];
  for (const [id, peer] of window.callbox.peers) {
    const pc = peer.pc;
    if (!pc) { continue; }
    const stats = await pc.getStats();
    const l = {peer: id, state: pc.connectionState, connection: pc.iceConnectionState, frames: 0, audio: 0, path: ''};
    let pair;
    stats.forEach((s) => {
      if (s.type === 'transport' && s.selectedCandidatePairId) { pair = stats.get(s.selectedCandidatePairId); }
      if (s.type === 'inbound-rtp' && s.kind === 'video') { l.frames += s.framesDecoded || 0; }
      if (s.type === 'inbound-rtp' && s.kind === 'audio') { l.audio += s.packetsReceived || 0; }
    });
    if (pair) {
      const local = stats.get(pair.localCandidateId), remote = stats.get(pair.remoteCandidateId);
      if (local) { l.local = local.candidateType; l.protocol = local.relayProtocol || ''; l.relayURL = local.url || ''; l.address = local.address || ''; }
      if (remote) { l.remote = remote.candidateType; }
    }
    const tile = document.querySelector('.tile[data-peer="' + CSS.escape(id) + '"] .path');
    if (tile) { l.path = tile.dataset.path || ''; }
    out.push(l);
  }
  return out;
})()`

// links returns what the page knows of every other peer.
func (c *caller) links() ([]link, error) {
	var all []link
	err := c.Eval(linksScript, &all)
	return all, err
}

// logIn goes where a link leads, through the login form.
func logIn(t *testing.T, page *testkit.Page, base, user, path string) *caller {
	t.Helper()
	c := &caller{Page: page, t: t, user: user}
	c.Open(base + path)
	at, err := url.Parse(c.Location())
	if err != nil {
		t.Fatal(err)
	}
	if at.Path != "/login" || (path != "/" && at.Query().Get("next") != path) {
		t.Fatalf("%s: %s leads to %s, not to the login form", user, path, at)
	}
	c.fillLogin(password)
	c.Until(20*time.Second, "is back at "+path, fmt.Sprintf("location.pathname === %q && document.readyState === 'complete'", path))
	return c
}

func (c *caller) fillLogin(password string) {
	c.t.Helper()
	c.fill("#username", c.user)
	c.fill("#password", password)
	c.Do(
		chromedp.Click(chromedp.CSS("form button[type=submit]")),
	)
}

// fill types a text into a field in place of what it holds; it may end in Enter.
func (c *caller) fill(field, text string) {
	c.t.Helper()
	c.Do(chromedp.WaitVisible(chromedp.CSS(field)))
	c.MustEval(fmt.Sprintf("(() => { const f = document.querySelector(%q); f.focus(); f.select(); })()", field), nil)
	c.Do(chromedp.SendKeys(chromedp.CSS(field), text))
}

// join leaves the lobby for the call.
func (c *caller) join(relayOnly bool) {
	c.t.Helper()
	c.Do(chromedp.WaitVisible(chromedp.CSS("#join")))
	c.Until(20*time.Second, "shows the camera's preview", "document.querySelector('#preview').videoWidth > 0")
	if relayOnly {
		c.MustEval("document.querySelector('#relay-only').checked || document.querySelector('#relay-only').click()", nil)
		c.Until(time.Second, "will only relay", "document.querySelector('#relay-only').checked")
	}
	c.Do(
		chromedp.WaitEnabled(chromedp.CSS("#join")),
		chromedp.Click(chromedp.CSS("#join")),
		chromedp.WaitVisible(chromedp.CSS("#call")),
	)
	c.Until(20*time.Second, "is in the call", "!!document.querySelector('.tile.self') && document.querySelector('#banner').hidden")
}

// connected waits until the page has media from every one of n other peers, and returns their links.
func (c *caller) connected(n int, within time.Duration, want func(link) error) []link {
	c.t.Helper()
	var last []link
	testkit.Eventually(c.t, within, c.user+" is connected", func() error {
		all, err := c.links()
		if err != nil {
			return err
		}
		last = all
		if len(all) != n {
			return fmt.Errorf("%d peers, not %d: %+v", len(all), n, all)
		}
		for _, l := range all {
			if l.State != "connected" || l.Frames == 0 {
				return fmt.Errorf("not yet: %+v", l)
			}
			if err := want(l); err != nil {
				return fmt.Errorf("%w: %+v", err, l)
			}
		}
		return nil
	})
	return last
}

// moving waits until at least 15 more video frames of every peer have been decoded than now.
func (c *caller) moving(within time.Duration) {
	c.t.Helper()
	before, err := c.links()
	if err != nil {
		c.t.Fatal(err)
	}
	if len(before) == 0 {
		c.t.Fatalf("%s has no peer", c.user)
	}
	testkit.Eventually(c.t, within, c.user+" decodes frames", func() error {
		now, err := c.links()
		if err != nil {
			return err
		}
		for i, l := range now {
			if i >= len(before) || l.Frames < before[i].Frames+15 {
				return fmt.Errorf("before %+v, now %+v", before, now)
			}
		}
		return nil
	})
}

// say sends a chat message by keyboard.
func (c *caller) say(text string) {
	c.t.Helper()
	c.MustEval("document.querySelector('#chat-input').checkVisibility() || document.querySelector('#chat-toggle').click()", nil)
	c.Do(
		chromedp.WaitVisible(chromedp.CSS("#chat-input")),
		chromedp.SendKeys(chromedp.CSS("#chat-input"), text+"\r"),
	)
}

// hears waits for a chat message.
func (c *caller) hears(text string) {
	c.t.Helper()
	quoted, _ := json.Marshal(text)
	c.Until(15*time.Second, "reads the chat message", fmt.Sprintf("document.querySelector('#chat-log').textContent.includes(%s)", quoted))
}

// leave ends the call for this page.
func (c *caller) leave() {
	c.t.Helper()
	c.Do(chromedp.Click(chromedp.CSS("#leave")))
}

// relayed wants both sides of the selected pair to be relays, the own one reached over one of the protocols, and the page to
// say so. Which of several the browser takes is its own affair.
func relayed(protocols ...string) func(link) error {
	return func(l link) error {
		if l.Local != "relay" || l.Remote != "relay" || !slices.Contains(protocols, l.Protocol) {
			return fmt.Errorf("not relayed over %v on both sides", protocols)
		}
		if l.Path != "relay "+l.Protocol {
			return fmt.Errorf("the page calls the path %q", l.Path)
		}
		return nil
	}
}

// direct wants no relay in the selected pair, and the page to say so.
func direct(l link) error {
	if l.Local == "relay" || l.Remote == "relay" || l.Local == "" {
		return errors.New("not direct")
	}
	if l.Path != "direct" {
		return fmt.Errorf("the page calls the path %q", l.Path)
	}
	return nil
}

// pair makes two users, logs both in through the form and opens one room's link in both.
func pair(t *testing.T, s *testkit.Server, b *testkit.Browser, room string) (*caller, *caller) {
	t.Helper()
	for _, user := range []string{"ada", "grace"} {
		s.AddUser(user, password)
	}
	ada := logIn(t, b.Page(t, "ada"), s.URL(""), "ada", "/call/"+room)
	grace := logIn(t, b.Page(t, "grace"), s.URL(""), "grace", "/call/"+room)
	return ada, grace
}
