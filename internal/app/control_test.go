package app

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"callbox/internal/control"
)

func TestControlSocketManagesUsersAndEndsTheirSessions(t *testing.T) {
	r := serve(t, nil)
	c := control.NewClient(r.data)
	ctx := t.Context()
	if err := c.AddUser(ctx, control.UserAdd{Name: "ada", Password: testPassword}); err != nil {
		t.Fatal(err)
	}
	if err := c.AddUser(ctx, control.UserAdd{Name: "Ada", Password: testPassword}); codeOf(err) != control.CodeExists {
		t.Errorf("again: %v", err)
	}
	if err := c.AddUser(ctx, control.UserAdd{Name: "bob", Password: "short"}); codeOf(err) != control.CodeBadPassword {
		t.Errorf("short password: %v", err)
	}
	if users, err := c.Users(ctx); err != nil || len(users) != 1 || users[0].Name != "ada" {
		t.Errorf("list: %v %v", users, err)
	}
	ada := r.logIn("ada")
	if err := c.SetPassword(ctx, control.UserPasswd{Name: "ada", Password: "another password"}); err != nil {
		t.Fatal(err)
	}
	if a := r.get(ada, "/"); a.Status != http.StatusSeeOther {
		t.Errorf("a session from before the new password: %d", a.Status)
	}
	if err := c.RemoveUser(ctx, "ada"); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveUser(ctx, "ada"); codeOf(err) != control.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
	key, err := c.AddKey(ctx, "shop")
	if err != nil || key.Key != key.ID+"."+key.Secret {
		t.Fatalf("key: %+v %v", key, err)
	}
	if keys, err := c.Keys(ctx); err != nil || len(keys) != 1 || keys[0].ID != key.ID {
		t.Errorf("keys: %v %v", keys, err)
	}
	if err := c.RemoveKey(ctx, key.ID); err != nil {
		t.Error(err)
	}
	if h, err := c.Health(ctx); err != nil || h.Status != "ok" || h.Addr != r.Addr().String() || h.Version != "test" {
		t.Errorf("health: %+v %v", h, err)
	}
	if info, err := os.Stat(filepath.Join(r.data, control.SocketName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info, err)
	}
}

func codeOf(err error) string {
	if e, ok := err.(*control.Error); ok {
		return e.Code
	}
	return ""
}
