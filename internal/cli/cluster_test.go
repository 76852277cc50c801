package cli

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestInterruptedStartEndsAtOnce: nothing answers where Redis should be, but the port is open.
func TestInterruptedStartEndsAtOnce(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "a secret of all nodes\n")
	dir := dataDir(t)
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var out, errs buffer
	go func() {
		ended <- Run(ctx, []string{"--listen", "127.0.0.1:0", "--data", dir, "--bus", "redis://" + silent.Addr().String(), "--cluster-secret-file", secret},
			Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs})
	}()
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := time.Now()
	interrupt()
	if status := <-ended; status != exitOK || time.Since(before) > time.Second {
		t.Errorf("status %d after %v: %s", status, time.Since(before), errs.String())
	}
}
