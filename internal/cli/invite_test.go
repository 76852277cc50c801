package cli

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"callbox/internal/control"
)

// TestInvites goes the same way directly and through a running server.
func TestInvites(t *testing.T) {
	for name, serve := range map[string]bool{"directly": false, "through the server": true} {
		t.Run(name, func(t *testing.T) {
			dir := dataDir(t)
			if serve {
				startServer(t, dir)
			}
			at := func(args ...string) []string { return append(args, "--data", dir) }
			made := decode[control.NewInvite](t, ok(t, "", at("invite", "--room", "tea", "--ttl", "2h", "--uses", "3", "--json")...))
			life := time.Until(made.ExpiresAt)
			if made.Room != "tea" || made.Uses != 3 || life > 2*time.Hour || life < 90*time.Minute || len(made.URLs) == 0 || made.URL != made.URLs[0] || !strings.Contains(made.URL, control.InvitePath) {
				t.Errorf("made %+v", made)
			}
			// What a script takes: the links alone, the best first.
			for line := range strings.Lines(ok(t, "", at("invite", "--room", "tea")...)) {
				if !strings.HasPrefix(line, "http") || strings.Contains(line, " ") {
					t.Errorf("printed %q", line)
				}
			}
			list := decode[control.InviteList](t, ok(t, "", at("invite", "list", "--json")...)).Invites
			if len(list) != 2 || list[0].ID != made.ID || list[0].Used != 0 || list[0].By != "" || list[1].Uses != 8 {
				t.Errorf("list %+v", list)
			}
			if table := ok(t, "", at("invite", "list")...); !strings.Contains(table, made.ID) || !strings.Contains(table, "0 of 3") || strings.Contains(table, made.URL) {
				t.Errorf("table:\n%s", table)
			}
			ok(t, "", at("invite", "remove", made.ID)...)
			fails(t, exitFault, "not found", at("invite", "remove", made.ID)...)
			fails(t, exitFault, "begin with @", at("invite", "--room", "@user/ada")...)
			fails(t, exitUsage, "--ttl", at("invite", "--room", "tea", "--ttl", "10s")...)
			fails(t, exitUsage, "--uses", at("invite", "--room", "tea", "--uses", "0")...)
			fails(t, exitUsage, "--room", at("invite")...)
		})
	}
}

func TestInviteMadeBeforeTheServerOpensItsPage(t *testing.T) {
	dir := dataDir(t)
	made := decode[control.NewInvite](t, ok(t, "", "invite", "--room", "tea", "--json", "--data", dir))
	_, path, _ := strings.Cut(made.URL, control.InvitePath)
	startServer(t, dir)
	health, err := control.NewClient(dir).Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + health.Addr + control.InvitePath + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("its page: %s", resp.Status)
	}
}

func TestInviteIsShownAsACodeWhereThereIsRoom(t *testing.T) {
	const colour = "\x1b[38;5;16;48;5;231m"
	for name, c := range map[string]struct {
		terminal       bool
		columns, lines int
		flag           []string
		want           bool
	}{
		"large terminal": {true, 80, 40, nil, true},
		"switched off":   {true, 80, 40, []string{"--qr", "off"}, false},
		"narrow":         {true, 30, 40, nil, false},
		"low":            {true, 80, 15, nil, false},
		"unknown size":   {true, 0, 0, nil, false},
		"a pipe":         {false, 80, 40, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			env := Env{Terminal: c.terminal, Size: func() (int, int) { return c.columns, c.lines },
				Environ: []string{"CALLBOX_PUBLIC_URL=https://call.example"}}
			r := runWith(t, env, append([]string{"invite", "--room", "tea", "--data", dataDir(t)}, c.flag...)...)
			if r.status != exitOK || strings.Contains(r.stdout, colour) != c.want || !strings.HasPrefix(r.stdout, "https://call.example/invite/") {
				t.Errorf("status %d %s\n%q", r.status, r.stderr, r.stdout)
			}
			if c.terminal != strings.Contains(r.stdout, "callbox invite remove ") {
				t.Errorf("how to withdraw it: %q", r.stdout)
			}
		})
	}
	fails(t, exitUsage, "qr", "invite", "--room", "tea", "--qr", "big", "--data", dataDir(t))
}
