package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"callbox/internal/config"
	"callbox/internal/control"
)

// reloadable is a server whose configuration a test changes.
func reloadable(t *testing.T, change func(*config.Config)) (r *running, next *config.Config) {
	t.Helper()
	cfg := onLoopback(t)
	if change != nil {
		change(&cfg)
	}
	next = &config.Config{}
	*next = cfg
	level := new(slog.LevelVar)
	return serveWith(t, cfg, Options{LogLevel: level, Reload: func() (config.Config, error) { return *next, nil }}), next
}

func (r *running) reload() control.Reloaded {
	r.t.Helper()
	out, err := control.NewClient(r.data).Reload(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// turnURLs are the TURN URLs that the holder of a cookie is given.
func (r *running) turnURLs(c *http.Client) string {
	r.t.Helper()
	var ice struct {
		ICEServers []struct{ URLs []string }
	}
	if err := json.Unmarshal([]byte(r.get(c, "/api/v1/ice-servers").Body), &ice); err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, s := range ice.ICEServers {
		all = append(all, s.URLs...)
	}
	return strings.Join(all, " ")
}

// credential is one that the running server makes.
func (r *running) credential() control.Credential {
	r.t.Helper()
	c, err := control.NewClient(r.data).Credential(r.t.Context(), control.CredentialRequest{User: "ada"})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// takes says whether the relay takes a credential.
func (r *running) takes(c control.Credential) bool {
	r.t.Helper()
	return allocate(r.t, "udp", r.Addr().String(), c.Username, c.Password) == nil
}

func TestReloadedPublicAddressIsThatOfTheNextRelayAndTheNextServers(t *testing.T) {
	r, next := reloadable(t, func(c *config.Config) { c.PublicIP = []netip.Addr{addr("203.0.113.5")} })
	r.addUser("ada", false)
	ada := r.logIn("ada")
	c := r.credential()
	for _, want := range []string{"203.0.113.5", "198.51.100.9"} {
		next.PublicIP = []netip.Addr{addr(want)}
		r.reload()
		if urls := r.turnURLs(ada); !strings.Contains(urls, "turn:"+want+":") {
			t.Errorf("URLs %s, want those of %s", urls, want)
		}
		at, err := relayed(t, "udp", r.Addr().String(), c.Username, c.Password)
		if err != nil || at.(*net.UDPAddr).IP.String() != want {
			t.Errorf("relay at %v, %v, want %s", at, err, want)
		}
		if got := r.startPage().Public; len(got) != 1 || got[0] != addr(want) {
			t.Errorf("start page says %v", got)
		}
	}
}

func TestReloadTakesOverWhatCanChangeAndNamesTheRest(t *testing.T) {
	r, next := reloadable(t, nil)
	r.addUser("ada", false)
	ada := r.logIn("ada")
	foreign := func() string {
		return r.get(r.browser(), "/api/v1/ice-servers", "Origin", "https://app.example").Header.Get("Access-Control-Allow-Origin")
	}
	private := netip.MustParseAddrPort("10.1.2.3:4000")
	if foreign() != "" || r.allowPeer(private) {
		t.Fatal("open from the start")
	}
	if got := r.reload(); len(got.Changed)+len(got.Restart) != 0 {
		t.Errorf("without a change: %+v", got)
	}
	next.TURNHost, next.Origins, next.AllowPeer = "turn.example", []config.Origin{"https://app.example"}, []config.PeerRule{"10.0.0.0/8"}
	next.LogLevel, next.TURNTTL = slog.LevelDebug, 5*time.Minute
	next.ICEServers = []config.ICEServer{{URL: "stun:stun.example:3478"}}
	next.Realm, next.MaxPeers = "other", 7
	got := r.reload()
	slices.Sort(got.Changed)
	if want := []string{"allow-peer", "ice-server", "log-level", "origin", "turn-host", "turn-ttl"}; !slices.Equal(got.Changed, want) {
		t.Errorf("changed %q, want %q", got.Changed, want)
	}
	if want := []string{"realm", "max-peers"}; !slices.Equal(got.Restart, want) {
		t.Errorf("restart %q, want %q", got.Restart, want)
	}
	if urls := r.turnURLs(ada); !strings.Contains(urls, "turn:turn.example:") || !strings.Contains(urls, "stun:stun.example:3478") {
		t.Errorf("URLs %s", urls)
	}
	if foreign() == "" || !r.allowPeer(private) || r.opts.LogLevel.Level() != slog.LevelDebug {
		t.Error("origin, peer rule or log level is as it was")
	}
	if c := r.credential(); c.Realm != "callbox" || time.Until(c.ExpiresAt) > 5*time.Minute {
		t.Errorf("credential %+v", c)
	}
	next.TURNURLs = []config.TURNURL{"turn:lb.example:3478?transport=udp"}
	got = r.reload()
	if !slices.Equal(got.Changed, []string{"turn-url"}) || !slices.Equal(got.Restart, []string{"realm", "max-peers"}) {
		t.Errorf("again: %+v", got)
	}
	if urls := r.turnURLs(ada); !strings.HasPrefix(urls, "turn:lb.example:3478?transport=udp") {
		t.Errorf("URLs %s", urls)
	}
}

func TestReloadedSecretsIssueAndTheOldOnesVerifyWhileTheyAreListed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets")
	const first, second = "the first secret of all", "the second secret of all"
	writeFile(t, file, first+"\n")
	r, _ := reloadable(t, func(c *config.Config) { c.TURNSecretFile = file })
	older := r.credential()
	writeFile(t, file, second+"\n"+first+"\n")
	if got := r.reload(); !slices.Equal(got.Changed, []string{"turn-secret-file"}) || len(got.Restart) != 0 {
		t.Errorf("rotated: %+v", got)
	}
	newer := r.credential()
	if !r.takes(older) || !r.takes(newer) {
		t.Error("with both secrets listed, a credential of one does not work")
	}
	writeFile(t, file, second+"\n")
	r.reload()
	if r.takes(older) || !r.takes(newer) {
		t.Error("after the first was struck off, not the second alone works")
	}
	writeFile(t, file, "short\n")
	if _, err := control.NewClient(r.data).Reload(t.Context()); codeOf(err) != control.CodeBadConfig || !strings.Contains(err.Error(), file+":1") {
		t.Errorf("a faulty file: %v", err)
	}
	if !r.takes(newer) {
		t.Error("a faulty file has changed something")
	}
}

func TestReloadOfAFaultyConfigurationChangesNothing(t *testing.T) {
	r, next := reloadable(t, nil)
	next.TURNHost, next.TURNSecretFile = "turn.example", filepath.Join(t.TempDir(), "missing")
	if _, err := control.NewClient(r.data).Reload(t.Context()); codeOf(err) != control.CodeBadConfig || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v", err)
	}
	if r.live.Load().cfg.TURNHost != "" {
		t.Error("the faultless half was taken over")
	}
	fixed := serve(t, nil)
	if _, err := control.NewClient(fixed.data).Reload(t.Context()); codeOf(err) != control.CodeBadConfig {
		t.Errorf("a server without sources: %v", err)
	}
	var refusal *control.Error
	if _, err := control.NewClient(r.data).Credential(t.Context(), control.CredentialRequest{}); !errors.As(err, &refusal) || refusal.Status != http.StatusBadRequest {
		t.Errorf("a credential for nobody: %v", err)
	}
}

func TestClusterSecretWaitsForARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets")
	const first, second = "the first secret of all", "the second secret of all"
	writeFile(t, file, first+"\n")
	r, _ := reloadable(t, func(c *config.Config) { c.ClusterSecretFile = file })
	writeFile(t, file, second+"\n")
	if got := r.reload(); !slices.Equal(got.Restart, []string{"cluster-secret-file"}) || len(got.Changed) != 0 {
		t.Errorf("got %+v", got)
	}
	if !r.takes(r.credential()) {
		t.Error("the relay refuses the server's own credential")
	}
	if got := r.live.Load().turn.Secrets; !slices.EqualFunc(got, r.secrets.TURN, slices.Equal) {
		t.Error("the TURN secret that is derived from it has changed")
	}
}

func TestHostThatMovesAnnouncesItsNewAddress(t *testing.T) {
	r := serve(t, func(c *config.Config) { c.Listen = netip.MustParseAddrPort("0.0.0.0:0") })
	was, now := []netip.Addr{addr("192.168.1.7")}, []netip.Addr{addr("192.168.9.2"), addr("2001:db8::9")}
	looks := make(chan []netip.Addr)
	r.moved(was)
	if urls := strings.Join(r.announcedURLs(), " "); !strings.Contains(urls, "turn:192.168.1.7:") {
		t.Fatalf("URLs %s", urls)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		r.watchHost(ctx, time.Millisecond, func() []netip.Addr { return <-looks })
	}()
	for _, look := range [][]netip.Addr{was, now, now} { // the third is asked for when the second has been taken over
		looks <- look
	}
	if urls := strings.Join(r.announcedURLs(), " "); !strings.Contains(urls, "turn:192.168.9.2:") || strings.Contains(urls, "192.168.1.7") {
		t.Errorf("URLs %s", urls)
	}
	if got := r.startPage().remote(); len(got) != 1 || !strings.Contains(got[0], "192.168.9.2") {
		t.Errorf("start page says %s", got)
	}
	cancel()
	close(looks)
	<-done
}

func TestSetUpLinkIsRenewedUntilThereIsAUser(t *testing.T) {
	r := serve(t, nil)
	if a := r.get(r.browser(), "/login"); !strings.Contains(a.Body, "set-up link") || strings.Contains(a.Body, r.setup) {
		t.Errorf("login page without a user: %s", a.Body)
	}
	tokens, done := make(chan string), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(done)
		r.renewSetup(ctx, time.Millisecond, func(token string) { tokens <- token })
	}()
	first := <-tokens
	second := <-tokens
	for _, token := range []string{first, second} {
		if a := r.get(r.browser(), "/setup?token="+token); a.Status != http.StatusOK || first == second {
			t.Errorf("link: %d", a.Status)
		}
	}
	r.addUser("ada", true)
	for ended := false; !ended; {
		select {
		case <-tokens: // was on its way
		case <-done:
			ended = true
		}
	}
	if a := r.get(r.browser(), "/login"); strings.Contains(a.Body, "set-up link") {
		t.Error("login page speaks of set-up where there is a user")
	}
}

// TestUsersOfAChangedFileAreTakenOver by a reload: a copy that was put back says who may come in.
func TestUsersOfAChangedFileAreTakenOver(t *testing.T) {
	r, _ := reloadable(t, nil)
	r.addUser("ada", true)
	file := filepath.Join(r.data, "users.json")
	copied, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r.addUser("eve", false)
	eve := r.logIn("eve")
	if got := r.reload().Changed; len(got) != 0 {
		t.Errorf("changed: %v", got)
	}
	if err := os.WriteFile(file, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.reload().Changed; !slices.Equal(got, []string{"users.json"}) {
		t.Errorf("changed: %v", got)
	}
	eventually(t, func() bool { _, there := r.web.users.Lookup("eve"); return !there })
	if got := r.get(eve, "/api/v1/ice-servers"); got.Status != http.StatusUnauthorized {
		t.Errorf("%+v", got)
	}
	r.logIn("ada")
}
