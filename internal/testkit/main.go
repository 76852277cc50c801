package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// Main is the TestMain of a package that uses Binary: it removes what was built and fails when a goroutine is left, except those that the options name.
func Main(m *testing.M, options ...goleak.Option) { goleak.VerifyTestMain(runner{m}, options...) }

type runner struct{ m *testing.M }

func (r runner) Run() int {
	code := r.m.Run()
	if err := RemoveBuilds(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// RemoveBuilds removes what Binary and PlainBinary have built. Programs that are not tests call it at their end.
func RemoveBuilds() error { return os.RemoveAll(buildDir()) }

// buildDir is one test process's own folder for what it builds.
func buildDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("callbox-test-%d", os.Getpid()))
}

// Binary returns the path of callbox as built from this tree, once in a test process. Where the test itself watches for data races, so does it.
func Binary(t testing.TB) string {
	t.Helper()
	if watchesRaces {
		return build(t, buildRace)
	}
	return build(t, buildPlain)
}

// PlainBinary is Binary without the race detector, for tests that measure memory or time.
func PlainBinary(t testing.TB) string {
	t.Helper()
	return build(t, buildPlain)
}

func build(t testing.TB, once func() (string, error)) string {
	t.Helper()
	path, err := once()
	if err != nil {
		t.Fatalf("callbox does not build: %v", err)
	}
	return path
}

var (
	buildRace  = sync.OnceValues(func() (string, error) { return goBuild("callbox-race", "-race", "callbox") })
	buildPlain = sync.OnceValues(func() (string, error) { return goBuild("callbox", "callbox") })
)

// goBuild builds a main package into this process's folder. The arguments are go build's.
func goBuild(name string, arguments ...string) (string, error) {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if err := os.MkdirAll(buildDir(), 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(buildDir(), name)
	if out, err := exec.Command("go", append([]string{"build", "-o", path}, arguments...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}
