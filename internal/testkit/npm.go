package testkit

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// NPM installs packages, each as NAME@VERSION, into a folder of the test's own, and returns the folder. Their scripts are
// not run.
func NPM(t testing.TB, packages ...string) string {
	t.Helper()
	npm := Tool(t, "npm")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"private":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	arguments := append([]string{"install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--save-exact"}, packages...)
	var out []byte
	var err error
	for range 3 { // the registry is far away
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		cmd := exec.CommandContext(ctx, npm, arguments...)
		cmd.Dir = dir
		out, err = cmd.CombinedOutput()
		cancel()
		if err == nil {
			return dir
		}
	}
	t.Fatalf("npm install: %v\n%s", err, out)
	return ""
}
