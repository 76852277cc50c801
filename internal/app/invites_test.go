package app

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"callbox/internal/config"
	"callbox/internal/control"
)

// invite makes an invite as the command does, and returns the path of its page.
func (r *running) invite(room string, uses int) (control.NewInvite, string) {
	r.t.Helper()
	made, err := control.NewClient(r.data).AddInvite(r.t.Context(), control.InviteAdd{Room: room, TTLSeconds: 3600, Uses: uses})
	if err != nil {
		r.t.Fatal(err)
	}
	u, err := url.Parse(made.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	return made, u.Path
}

// guest lets somebody in by an invite.
func (r *running) guest(path, name string) *http.Client {
	r.t.Helper()
	c := r.browser()
	if a := r.form(c, path, "name", name); a.Status != http.StatusSeeOther {
		r.t.Fatalf("%s is not let in: %d %s", name, a.Status, a.Body)
	}
	return c
}

func (r *running) turnCredential(c *http.Client, path string) control.Credential {
	r.t.Helper()
	var ice struct {
		ICEServers []struct{ Username, Credential string }
		ExpiresAt  time.Time
	}
	if a := r.get(c, path); json.Unmarshal([]byte(a.Body), &ice) != nil || len(ice.ICEServers) != 2 {
		r.t.Fatalf("%d %s", a.Status, a.Body)
	}
	return control.Credential{Username: ice.ICEServers[1].Username, Password: ice.ICEServers[1].Credential, ExpiresAt: ice.ExpiresAt}
}

func TestGuestJoinsTheRoomOfTheInviteAndNoOther(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	made, path := r.invite("tea time", 1)
	if !strings.HasPrefix(made.URL, r.url(control.InvitePath)) || made.Room != "tea time" || made.Uses != 1 {
		t.Errorf("made %+v", made)
	}
	// Programs that preview links fetch the page, and count for nothing.
	for range 10 {
		if a := r.get(r.browser(), path); a.Status != http.StatusOK || !strings.Contains(a.Body, "tea time") {
			t.Fatalf("page: %d", a.Status)
		}
		if a := r.do(r.browser(), http.MethodHead, path, ""); a.Status != http.StatusOK {
			t.Fatalf("head: %d", a.Status)
		}
	}
	zoe := r.browser()
	if a := r.form(zoe, path, "name", " \x00"); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "printable") {
		t.Errorf("bad name: %d", a.Status)
	}
	a := r.form(zoe, path, "name", "Zoë")
	if a.Status != http.StatusSeeOther || a.Header.Get("Location") != "/call/tea%20time" || !strings.Contains(a.Header.Get("Set-Cookie"), "HttpOnly") {
		t.Fatalf("let in: %d to %q", a.Status, a.Header.Get("Location"))
	}
	if a := r.get(zoe, "/call/tea%20time"); a.Status != http.StatusOK || !strings.Contains(a.Body, `"name":"Zoë"`) ||
		!strings.Contains(a.Body, `"guest":true`) || !strings.Contains(a.Body, `"user":"guest:`) || strings.Contains(a.Body, "guest-link") {
		t.Errorf("call page: %d", a.Status)
	}
	for path, want := range map[string]int{
		"/call/other": http.StatusForbidden, "/api/v1/ice-servers?room=other": http.StatusForbidden,
		"/api/v1/ice-servers?room=tea%20time": http.StatusOK, "/api/v1/ice-servers": http.StatusOK,
		"/": http.StatusSeeOther, "/login": http.StatusOK, path: http.StatusSeeOther,
	} {
		if a := r.get(zoe, path); a.Status != want {
			t.Errorf("%s: %d, want %d", path, a.Status, want)
		}
	}
	if a := r.do(zoe, http.MethodPost, "/api/v1/invites", `{"room":"tea time"}`, "Content-Type", "application/json"); a.Status != http.StatusForbidden {
		t.Errorf("a guest invites: %d", a.Status)
	}
	if c := r.turnCredential(zoe, "/api/v1/ice-servers"); !r.takes(c) || c.ExpiresAt.After(made.ExpiresAt) {
		t.Errorf("credential %+v", c)
	}

	conn, _ := r.dial(zoe, "", r.own())
	p := r.join(conn, "tea time")
	p.send(map[string]any{"type": "join", "room": "other", "id": "1"})
	if m := p.await("error"); m.Code != "not-allowed" {
		t.Errorf("another room: %+v", m)
	}
	ada, _ := r.dial(r.logIn("ada"), "", r.own())
	q := &peer{t: t, conn: ada}
	q.send(map[string]any{"type": "hello"})
	q.await("welcome")
	q.send(map[string]any{"type": "join", "room": "tea time"})
	if m := q.await("joined"); !slices.ContainsFunc(m.Peers, func(p struct{ Peer, User string }) bool { return strings.HasPrefix(p.User, "guest:") }) {
		t.Errorf("who is there: %+v", m.Peers)
	}

	// Used up: it explains itself, and lets its own guest back in all the same.
	for _, a := range []answer{r.get(r.browser(), path, "Accept", "text/html"), r.form(r.browser(), path, "name", "Eve")} {
		if a.Status != http.StatusGone || !strings.Contains(a.Body, "Ask who sent it") {
			t.Errorf("used up: %d %s", a.Status, a.Body)
		}
	}
	if a := r.form(zoe, path, "name", "Zoë"); a.Status != http.StatusSeeOther || len(a.Header.Values("Set-Cookie")) > 0 {
		t.Errorf("once more: %d", a.Status)
	}
	// A user needs no invitation.
	if a := r.get(r.logIn("ada"), path); a.Status != http.StatusSeeOther || a.Header.Get("Location") != "/call/tea%20time" {
		t.Errorf("user: %d", a.Status)
	}
}

func TestRemovedInviteEndsItsGuestsAtOnce(t *testing.T) {
	r := serve(t, nil)
	made, path := r.invite("tea", 3)
	_, otherPath := r.invite("tea", 3)
	guests := map[string]*http.Client{"removed": r.guest(path, "Zoë"), "other": r.guest(otherPath, "Max"), "left": r.guest(otherPath, "Lea")}
	peers, credentials := map[string]*peer{}, map[string]control.Credential{}
	for name, c := range guests {
		conn, _ := r.dial(c, "", r.own())
		peers[name] = r.join(conn, "tea")
		credentials[name] = r.turnCredential(c, "/api/v1/ice-servers")
		if !r.takes(credentials[name]) {
			t.Fatalf("%s: no relay", name)
		}
	}
	gone := func(name string, allocations int) {
		t.Helper()
		if code := peers[name].awaitClose(); code != 4001 {
			t.Errorf("%s: closed with %d", name, code)
		}
		if a := r.get(guests[name], "/call/tea"); a.Status != http.StatusSeeOther {
			t.Errorf("%s: call page %d", name, a.Status)
		}
		if _, status := r.dial(guests[name], "", r.own()); status != http.StatusUnauthorized {
			t.Errorf("%s: WebSocket %d", name, status)
		}
		eventually(t, func() bool { return len(r.relay.Allocations()) == allocations })
		if r.takes(credentials[name]) {
			t.Errorf("%s: the credential opens the relay", name)
		}
	}
	if a := r.form(guests["left"], "/logout"); a.Status != http.StatusSeeOther {
		t.Fatalf("logout: %d", a.Status)
	}
	gone("left", 2)
	if err := control.NewClient(r.data).RemoveInvite(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	gone("removed", 1)
	if a := r.get(r.browser(), path); a.Status != http.StatusNotFound {
		t.Errorf("removed link: %d", a.Status)
	}
	peers["other"].send(map[string]any{"type": "ping", "id": "still"})
	if m := peers["other"].await("pong"); m.ID != "still" {
		t.Errorf("the other invite's guest: %+v", m)
	}
}

func TestUsersInviteOnTheCallPageWhereTheyMay(t *testing.T) {
	for who, want := range map[config.Inviters][2]int{ // of a user, of an administrator
		config.InviteUsers: {201, 201}, config.InviteAdmins: {403, 201}, config.InviteNobody: {403, 403},
	} {
		t.Run(string(who), func(t *testing.T) {
			r := serve(t, func(c *config.Config) { c.GuestInvites, c.PublicURL = who, "https://call.example" })
			r.addUser("ada", false)
			r.addUser("root", true)
			for i, name := range []string{"ada", "root"} {
				c := r.logIn(name)
				a := r.do(c, http.MethodPost, "/api/v1/invites", `{"room":"tea"}`, "Content-Type", "application/json")
				if a.Status != want[i] {
					t.Errorf("%s: %d %s", name, a.Status, a.Body)
				}
				if page := r.get(c, "/call/tea"); strings.Contains(page.Body, `id="guest-link"`) != (want[i] == 201) {
					t.Errorf("%s: the button is not where it belongs", name)
				}
				var made control.NewInvite
				if want[i] != 201 {
					continue
				}
				if err := json.Unmarshal([]byte(a.Body), &made); err != nil || made.Uses != 8 || !strings.HasPrefix(made.URL, "https://call.example/invite/") {
					t.Errorf("%s: %+v %v", name, made, err)
				}
			}
			a := r.do(r.browser(), http.MethodPost, "/api/v1/invites", `{"room":"tea"}`, "Content-Type", "application/json")
			if a.Status != http.StatusUnauthorized {
				t.Errorf("stranger: %d", a.Status)
			}
			a = r.do(r.browser(), http.MethodPost, "/api/v1/invites", `{"room":"tea"}`, "Content-Type", "application/json", "Authorization", "Bearer "+r.mint("tea", "x", time.Hour))
			if a.Status != http.StatusForbidden {
				t.Errorf("room token: %d", a.Status)
			}
			if who != config.InviteUsers {
				return
			}
			for body, want := range map[string]int{
				`{"room":"@user/ada"}`: 400, `{"room":"tea","uses":0}`: 400, `{"room":"tea","ttlSeconds":9223372036854775807}`: 400,
				`{"room":"tea","ttlSeconds":-1}`: 400, `{"room":"tea","ttlSeconds":60,"uses":1}`: 201, `{}`: 400,
			} {
				if a := r.do(r.logIn("ada"), http.MethodPost, "/api/v1/invites", body, "Content-Type", "application/json"); a.Status != want {
					t.Errorf("%s: %d %s", body, a.Status, a.Body)
				}
			}
			// What a user has made goes with the user.
			if err := control.NewClient(r.data).RemoveUser(t.Context(), "ADA"); err != nil {
				t.Fatal(err)
			}
			left, err := control.NewClient(r.data).Invites(t.Context())
			if err != nil || len(left) != 1 || left[0].By != "root" {
				t.Errorf("left %+v %v", left, err)
			}
		})
	}
}

func TestInvitesAreOneOnAllNodes(t *testing.T) {
	nodes := cluster(t, 2, nil)
	a, b := nodes[0], nodes[1]
	made, path := a.invite("tea", 2)
	zoe := b.guest(path, "Zoë") // whatever news has come to b by now
	if again := a.form(a.browser(), path, "name", "Max"); again.Status != http.StatusSeeOther {
		t.Fatalf("second guest: %d", again.Status)
	}
	for _, n := range nodes {
		if got := n.form(n.browser(), path, "name", "Eve"); got.Status != http.StatusGone {
			t.Errorf("third guest: %d", got.Status)
		}
	}
	u, _ := url.Parse(b.url("/"))
	cookie := zoe.Jar.Cookies(u)[0].String()
	header := a.own()
	header.Set("Cookie", cookie)
	conn, _ := a.dial(a.browser(), "", header)
	p := a.join(conn, "tea")
	if err := control.NewClient(b.data).RemoveInvite(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if code := p.awaitClose(); code != 4001 {
		t.Errorf("removed on the other node: closed with %d", code)
	}
}

func TestGuessedInvitesAreSlowedDown(t *testing.T) {
	r := serve(t, nil)
	_, path := r.invite("tea", 8)
	last := answer{}
	for range 30 {
		if last = r.get(r.browser(), control.InvitePath+"AAAAAAAAAAAAAAAAAAAAAA"); last.Status != http.StatusNotFound {
			break
		}
	}
	if last.Status != http.StatusTooManyRequests || last.Header.Get("Retry-After") == "" {
		t.Errorf("guesses: %d", last.Status)
	}
	// Who has the right link is let in none the less: it cannot be guessed.
	r.guest(path, "Zoë")
}
