package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// clientsPage has the clients of other servers as applications load them.
const clientsPage = `<!doctype html>
<meta charset="utf-8">
<title>other servers' clients</title>
<video id="video" autoplay playsinline muted></video>
<script src="/node_modules/peerjs/dist/peerjs.min.js"></script>
<script type="module">
window.ayame = await import('/node_modules/@open-ayame/ayame-web-sdk/dist/ayame.mjs');
window.yjs = await import('/yjs.js');
window.media = () => navigator.mediaDevices.getUserMedia({ audio: true, video: true });
window.show = (stream) => { document.querySelector('#video').srcObject = stream; };
window.moving = () => document.querySelector('#video').videoWidth > 0 && document.querySelector('#video').currentTime > 0;
window.happened = [];
window.ready = true;
</script>`

// applications are pages of an origin of their own that use npm packages.
type applications struct {
	t       *testing.T
	site    *httptest.Server
	browser *testkit.Browser
}

func newApplications(t *testing.T) *applications {
	t.Helper()
	dir := testkit.NPM(t, "peerjs@1.5.5", "y-webrtc@10.3.0", "yjs@13.6.27", "@open-ayame/ayame-web-sdk@2025.1.1", "esbuild@0.25.0")
	source := filepath.Join(dir, "entry.js")
	if err := os.WriteFile(source, []byte("export * as Y from 'yjs';\nexport { WebrtcProvider } from 'y-webrtc';\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The packages are made of many modules that name each other as only bundlers and Node understand.
	bundle := exec.Command(filepath.Join(dir, "node_modules/.bin/esbuild"), source, "--bundle", "--format=esm", "--outfile="+filepath.Join(dir, "yjs.js"))
	if out, err := bundle.CombinedOutput(); err != nil {
		t.Fatalf("esbuild: %v\n%s", err, out)
	}
	files := http.FileServer(http.Dir(dir))
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			files.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprint(w, clientsPage)
	}))
	t.Cleanup(site.Close)
	return &applications{t: t, site: site, browser: testkit.NewBrowser(t)}
}

func (a *applications) page(t *testing.T, name string) *testkit.Page {
	t.Helper()
	p := a.browser.Page(t, name)
	p.Open(a.site.URL)
	p.Until(20*time.Second, "is loaded", "window.ready")
	return p
}

// server has the protocols on and takes pages of the site.
func (a *applications) server(t *testing.T, o testkit.Options) *testkit.Server {
	t.Helper()
	o.Args = append(o.Args, "--compat", "peerjs,y-webrtc,ayame,matchbox", "--origin", a.site.URL)
	return testkit.Serve(t, o)
}

func token(s *testkit.Server, room, user string) string {
	return strings.TrimSpace(s.MustCLI("", "token", "--room", room, "--user", user, "--ttl", "1h"))
}

func TestClientsOfOtherServers(t *testing.T) {
	a := newApplications(t)
	t.Run("PeerJS on one node", func(t *testing.T) {
		s := a.server(t, testkit.Options{})
		roomToken(t, s, "hall", "ada")
		peerJS(t, a, s, s)
	})
	t.Run("PeerJS on two nodes", func(t *testing.T) {
		redis := testkit.Redis(t)
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, []byte("a secret that the nodes of this test share\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var nodes []*testkit.Server
		for i := range 2 {
			name := fmt.Sprint("node", i+1)
			nodes = append(nodes, a.server(t, testkit.Options{
				Name: name, Env: []string{"CALLBOX_TURN_SECRET_FILE=" + secret},
				Args: []string{"--bus", redis.URL(), "--node-name", name, "--drain-timeout", "1s"},
			}))
		}
		known, _, _ := roomToken(t, nodes[0], "hall", "ada")
		testkit.Eventually(t, 10*time.Second, "the key is known to the other node", func() error {
			if code, _, _ := iceServers(t, nodes[1], nodes[1].Client(), known, ""); code != http.StatusOK {
				return fmt.Errorf("status %d", code)
			}
			return nil
		})
		peerJS(t, a, nodes[0], nodes[1])
	})
	t.Run("y-webrtc", func(t *testing.T) { yWebRTC(t, a) })
	t.Run("Ayame", func(t *testing.T) { ayame(t, a) })
}

// newPeer makes a PeerJS peer, and returns "open" or the type of the error.
func newPeer(t *testing.T, p *testkit.Page, s *testkit.Server, id, token string) string {
	t.Helper()
	var outcome string
	p.MustEval(fmt.Sprintf(`(async () => {
		const config = await (await fetch(%q, { headers: { Authorization: 'Bearer ' + %q } })).json();
		window.peer = new Peer(%q, { host: '127.0.0.1', port: %d, path: '/peerjs', token: %q, config, debug: 1 });
		for (const kind of ['disconnected', 'close']) peer.on(kind, () => happened.push(kind));
		peer.on('connection', (c) => c.on('data', (d) => { happened.push('got ' + d); c.send('again ' + d); }));
		peer.on('call', async (call) => { call.on('stream', show); call.answer(await media()); call.on('close', () => happened.push('call over')); });
		return new Promise((done) => {
			peer.on('open', () => done('open'));
			peer.on('error', (e) => { happened.push(e.type); done(e.type); });
		});
	})()`, s.URL("/api/v1/ice-servers"), token, id, s.Port, token), &outcome)
	return outcome
}

func peerJS(t *testing.T, a *applications, first, second *testkit.Server) {
	ada, grace := a.page(t, "ada"), a.page(t, "grace")
	adaToken := token(first, "hall", "ada")
	if got := newPeer(t, ada, first, "ada", adaToken); got != "open" {
		t.Fatalf("ada: %s", got)
	}
	if got := newPeer(t, grace, second, "grace-1", token(first, "hall", "grace")); got != "open" {
		t.Fatalf("grace: %s", got)
	}
	var turn bool
	ada.MustEval(`peer.options.config.iceServers.some((s) => s.username && s.credential)`, &turn)
	if !turn {
		t.Error("the config has no TURN credential")
	}

	ada.MustEval(`(window.link = peer.connect('grace-1'), link.on('open', () => link.send('hello')), link.on('data', (d) => happened.push('got ' + d)), null)`, nil)
	grace.Until(20*time.Second, "hears ada", `happened.includes('got hello')`)
	ada.Until(20*time.Second, "hears grace", `happened.includes('got again hello')`)

	ada.MustEval(`media().then((s) => { window.call = peer.call('grace-1', s); call.on('stream', show); })`, nil)
	ada.Until(20*time.Second, "sees grace", `moving()`)
	grace.Until(20*time.Second, "sees ada", `moving()`)

	ada.MustEval(`(peer.connect('nobody'), null)`, nil)

	// The id is taken for another token, and for the same one free to go on with: what is connected stays so.
	eve := a.page(t, "eve")
	if got := newPeer(t, eve, second, "ada", token(first, "hall", "eve")); got != "unavailable-id" {
		t.Errorf("eve takes ada's id: %s", got)
	}
	ada.Until(15*time.Second, "hears that nobody is there", `happened.includes('peer-unavailable')`)
	ada.MustEval(`new Promise((done) => { peer.once('open', () => done()); peer.disconnect(); peer.reconnect(); })`, nil)
	ada.MustEval(`(happened.length = 0, link.send('still'), null)`, nil)
	ada.Until(10*time.Second, "is heard as before", `happened.includes('got again still')`)
	grace.MustEval(`(window.back = peer.connect('ada'), back.on('open', () => back.send('back')), null)`, nil)
	ada.Until(20*time.Second, "is found again", `happened.includes('got back')`)

	// The same token takes the place over, and nobody's call ends for it.
	again := a.page(t, "again")
	if got := newPeer(t, again, second, "ada", adaToken); got != "open" {
		t.Errorf("ada on another page: %s", got)
	}
	ada.Until(10*time.Second, "is replaced", `happened.includes('disconnected')`)
	grace.MustEval(`(window.other = peer.connect('ada'), other.on('open', () => other.send('new')), null)`, nil)
	again.Until(20*time.Second, "is found in its place", `happened.includes('got new')`)
	var over bool
	grace.MustEval(`happened.includes('call over')`, &over)
	if over {
		t.Error("a call ended because a socket was replaced")
	}
}

// newDocument opens the shared document.
func newDocument(p *testkit.Page, s *testkit.Server, token string) {
	p.MustEval(fmt.Sprintf(`(() => {
		window.doc = new yjs.Y.Doc();
		window.provider = new yjs.WebrtcProvider('minutes', doc, { signaling: ['ws://%s/y-webrtc?token=%s'], peerOpts: { config: { iceServers: [] } } });
		window.text = doc.getText('text');
	})()`, s.Addr(), token), nil)
}

func yWebRTC(t *testing.T, a *applications) {
	s := a.server(t, testkit.Options{})
	known, _, _ := roomToken(t, s, "minutes", "ada")
	ada, grace := a.page(t, "ada"), a.page(t, "grace")
	newDocument(ada, s, known)
	newDocument(grace, s, known)
	ada.MustEval(`(text.insert(0, 'from ada. '), null)`, nil)
	grace.Until(30*time.Second, "reads ada", `text.toString().includes('from ada.')`)
	grace.MustEval(`(text.insert(0, 'from grace. '), null)`, nil)
	ada.Until(10*time.Second, "reads grace", `text.toString() === 'from grace. from ada. '`)

	s.Stop()
	s.Restart()
	eve := a.page(t, "eve")
	newDocument(eve, s, known)
	eve.Until(40*time.Second, "reads both, who have come back", `text.toString() === 'from grace. from ada. '`)
	eve.MustEval(`(text.insert(0, 'from eve. '), null)`, nil)
	ada.Until(20*time.Second, "reads eve", `text.toString() === 'from eve. from grace. from ada. '`)
	grace.Until(20*time.Second, "reads eve", `text.toString() === 'from eve. from grace. from ada. '`)
}

// newAyame connects to the room and returns "accepted" or why not.
func newAyame(p *testkit.Page, s *testkit.Server, token string) (outcome string) {
	p.MustEval(fmt.Sprintf(`(async () => {
		window.conn = ayame.createConnection('ws://%s/ayame/signaling', 'tea', { ...ayame.defaultOptions, signalingKey: %q });
		conn.on('addstream', (e) => show(e.stream));
		conn.on('bye', () => happened.push('bye'));
		conn.on('disconnect', (e) => happened.push('disconnect ' + e.reason));
		return conn.connect(await media()).then(() => 'accepted', (e) => String(e));
	})()`, s.Addr(), token), &outcome)
	return outcome
}

func ayame(t *testing.T, a *applications) {
	s := a.server(t, testkit.Options{})
	known, _, _ := roomToken(t, s, "tea", "ada")
	ada, grace, eve := a.page(t, "ada"), a.page(t, "grace"), a.page(t, "eve")
	for _, p := range []*testkit.Page{ada, grace} {
		if got := newAyame(p, s, known); got != "accepted" {
			t.Fatalf("%s: %s", p.Name, got)
		}
	}
	ada.Until(20*time.Second, "sees grace", `moving()`)
	grace.Until(20*time.Second, "sees ada", `moving()`)
	var turn bool
	ada.MustEval(`conn.pcConfig.iceServers.some((s) => s.username && s.credential)`, &turn)
	if !turn {
		t.Error("accept brought no TURN credential")
	}
	if got := newAyame(eve, s, known); got != "REJECTED" {
		t.Errorf("the third: %s", got)
	}
	eve.Until(10*time.Second, "hears why", `happened.includes('disconnect full')`)
	ada.MustEval(`conn.disconnect()`, nil)
	grace.Until(10*time.Second, "hears bye", `happened.includes('bye')`)
}
