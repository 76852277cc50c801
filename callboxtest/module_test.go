package callboxtest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What another program's module and its tests look like.
const (
	otherModule = `module other.example/app

go 1.26

require callbox v0.0.0

replace callbox => ROOT
`
	otherTest = `package app

import (
	"testing"

	"callbox/bus"
	"callbox/callboxtest"
	"callbox/relay"
	"callbox/signal"
	"callbox/signal/client"
)

// The packages are for others to import.
var (
	_ bus.Bus
	_ relay.Config
	_ signal.Config
)

func TestTwoUsersMeetOnTwoNodes(t *testing.T) {
	c := callboxtest.StartCluster(t, 2)
	a, b := c.Nodes[0].Client("tea", "ada"), c.Nodes[1].Client("tea", "bob")
	for _, peer := range []*client.Client{a, b} {
		if _, err := peer.Join(t.Context(), "tea"); err != nil {
			t.Fatal(err)
		}
	}
	for {
		e, err := a.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if joined, ok := e.(client.PeerJoined); ok && joined.Peer == b.Self() {
			break
		}
	}
	c.Kill(1)
	if ice := c.Nodes[0].ICEServers("tea", "ada"); len(ice.Servers) == 0 {
		t.Error("no ICE servers")
	}
}
`
)

func TestAnotherModuleTestsWithIt(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod": strings.Replace(otherModule, "ROOT", filepath.ToSlash(root), 1), "go.sum": string(sums), "app_test.go": otherTest,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// With nothing but what is in the module cache already.
	cmd := exec.CommandContext(ctx, "go", "test", "-mod=mod", "-count=1", "-timeout=2m", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ok") {
		t.Errorf("go test: %v\n%s", err, out)
	}
}
