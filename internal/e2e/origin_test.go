package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// foreignPage is somebody else's application: it has its own origin and only callbox.js and a room token of callbox's.
const foreignPage = `<!doctype html>
<meta charset="utf-8">
<title>another application</title>
<video id="other" autoplay playsinline muted></video>
<script type="module">
import { Client } from %q;
const params = new URLSearchParams(location.search);
const client = new Client({ token: params.get('token') });
window.callbox = client;
window.faults = [];
client.on('closed', (e) => window.faults.push(String(e)));
client.on('peer', (peer) => { document.querySelector('#other').srcObject = peer.stream; });
client.publish(await navigator.mediaDevices.getUserMedia({ audio: true, video: true }));
await client.join('embedded');
window.joined = true;
</script>`

func TestPageOfAnotherOriginUsesTheClient(t *testing.T) {
	port := testkit.Port(t, "127.0.0.1")
	module := fmt.Sprintf("http://127.0.0.1:%d/static/callbox.js", port)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(w, foreignPage, module)
	}))
	defer site.Close()
	stranger := httptest.NewServer(site.Config.Handler)
	defer stranger.Close()

	s := testkit.Serve(t, testkit.Options{Port: port, Args: []string{"--origin", site.URL}})
	token, _, _ := roomToken(t, s, "embedded", "guest")
	b := testkit.NewBrowser(t)
	one := &caller{Page: b.Page(t, "one"), t: t, user: "one"}
	two := &caller{Page: b.Page(t, "two"), t: t, user: "two"}
	for _, c := range []*caller{one, two} {
		c.Open(site.URL + "/?token=" + token)
		c.Until(20*time.Second, "has joined", "window.joined === true && window.faults.length === 0")
	}
	for _, c := range []*caller{one, two} {
		c.connected(1, 30*time.Second, func(link) error { return nil })
		c.moving(20 * time.Second)
		// The API answers that origin too.
		var servers int
		c.MustEval(fmt.Sprintf(`fetch('http://127.0.0.1:%d/api/v1/ice-servers?room=embedded', {headers: {Authorization: 'Bearer %s'}}).then((r) => r.json()).then((a) => a.iceServers.length)`, port, token), &servers)
		if servers == 0 {
			t.Error("no iceServers for the other origin")
		}
	}

	// An origin that was not named gets neither the module nor an answer of the API.
	other := b.Page(t, "stranger")
	other.Open(stranger.URL + "/?token=" + token)
	var outcome string
	other.MustEval(fmt.Sprintf(`import(%q).then(() => 'imported', () => 'refused')`, module), &outcome)
	if outcome != "refused" {
		t.Errorf("callbox.js at an origin that --origin does not name: %s", outcome)
	}
	other.MustEval(fmt.Sprintf(`fetch('http://127.0.0.1:%d/api/v1/ice-servers?room=embedded', {headers: {Authorization: 'Bearer %s'}}).then((r) => 'answered', () => 'refused')`, port, token), &outcome)
	if outcome != "refused" {
		t.Errorf("the API at an origin that --origin does not name: %s", outcome)
	}
}
