package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"callbox/internal/control"
)

// TestAccountsOfAClusterWithoutAServer works on what the nodes share, from a machine where none runs.
func TestAccountsOfAClusterWithoutAServer(t *testing.T) {
	redis := miniredis.RunT(t)
	file, secret := filepath.Join(t.TempDir(), "callbox.yaml"), filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "a secret of all nodes\n")
	writeFile(t, file, "bus: redis://"+redis.Addr()+"\ncluster-secret-file: "+secret+"\n")
	node, one, other := dataDir(t), dataDir(t), dataDir(t)
	stop := startServer(t, node, "--config", file, "--drain-timeout", "0s")
	names := func(at ...string) string {
		var out []string
		for _, u := range decode[control.UserList](t, ok(t, "", append([]string{"user", "list", "--json"}, at...)...)).Users {
			out = append(out, u.Name)
		}
		return strings.Join(out, " ")
	}
	ok(t, "correct horse\n", "user", "add", "ada", "--password-stdin", "--data", one, "--config", file)
	key := decode[control.NewKey](t, ok(t, "", "key", "add", "shop", "--json", "--data", other, "--config", file))
	if got := names("--data", other, "--config", file); got != "ada" {
		t.Errorf("another machine sees %q", got)
	}
	waitFor(t, func() bool { return names("--data", node) == "ada" })
	waitFor(t, func() bool {
		return strings.Contains(ok(t, "", "key", "list", "--data", node), key.ID)
	})
	ok(t, "", "user", "remove", "ada", "--data", other, "--config", file)
	waitFor(t, func() bool { return names("--data", node) == "" })
	ok(t, "correct horse\n", "user", "add", "bob", "--password-stdin", "--data", other, "--config", file)
	fails(t, exitFault, "exists", "user", "add", "bob", "--password-stdin", "--data", one, "--config", file)

	if left := stop(); left.status != exitOK {
		t.Errorf("server left %+v", left)
	}
	redis.Close()
	fails(t, exitFault, "start Redis", "user", "list", "--data", one, "--config", file)
}
