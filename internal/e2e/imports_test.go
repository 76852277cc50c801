package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"callbox/internal/testkit"
)

// allowed says which packages of callbox each part may import. A part is the first element of the path below the module,
// or two below internal; its own subpackages are always allowed.
var allowed = map[string][]string{
	".":                 {"internal/cli"},
	"internal/cli":      {"internal/app", "internal/config", "internal/control", "internal/datadir", "internal/doctor", "internal/qr", "auth", "bus", "relay", "signal"},
	"internal/app":      {"signal", "relay", "bus", "auth", "static", "internal/config", "internal/metrics", "internal/control", "internal/datadir", "internal/localca", "internal/certs", "internal/doctor", "internal/nat", "internal/openid", "internal/qr", "internal/router", "internal/webhook"},
	"internal/metrics":  {"signal", "relay", "bus", "auth", "internal/webhook"},
	"internal/webhook":  {},
	"internal/config":   {},
	"internal/control":  {"auth", "internal/doctor"},
	"internal/doctor":   {"internal/stunaddr"},
	"internal/datadir":  {},
	"internal/localca":  {},
	"internal/certs":    {"bus", "internal/localca"},
	"internal/nat":      {"internal/router", "internal/stunaddr"},
	"internal/openid":   {},
	"internal/qr":       {},
	"internal/router":   {},
	"internal/stunaddr": {},
	"internal/testkit":  {},
	"internal/bench":    {"bus", "signal", "internal/testkit"},
	"internal/e2e":      {"internal/testkit", "signal"},
	"signal":            {"bus"},
	"relay":             {},
	"bus":               {},
	"auth":              {},
	"static":            {},
	"packaging":         {},
	"callboxtest":       {"internal/app", "internal/config", "internal/control", "auth", "signal"},
}

// forTests are parts that exist only for tests: a _test.go file of any part may import them.
var forTests = []string{"internal/testkit", "bus"}

type listed struct {
	ImportPath, Name                   string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	// Every system's files count, not only this one's.
	var all []listed
	for _, system := range []string{"linux", "darwin", "windows"} {
		cmd := exec.Command(testkit.Tool(t, "go"), "list", "-e", "-json=ImportPath,Name,Imports,TestImports,XTestImports", "./...")
		cmd.Dir = testkit.Root(t)
		cmd.Env = append(cmd.Environ(), "GOOS="+system)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		decoder := json.NewDecoder(strings.NewReader(string(out)))
		for {
			var p listed
			if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

// part returns the element of the map a package belongs to; false for packages of others.
func part(importPath string) (string, bool) {
	importPath, _, _ = strings.Cut(importPath, " ") // the variant a test is built in
	if importPath == "callbox" {
		return ".", true
	}
	rest, ok := strings.CutPrefix(importPath, "callbox/")
	if !ok {
		return "", false
	}
	elements := strings.Split(rest, "/")
	n := 1
	if elements[0] == "internal" {
		n = 2
	}
	return strings.Join(elements[:min(n, len(elements))], "/"), true
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range packages(t) {
		from, _ := part(p.ImportPath)
		may, known := allowed[from]
		if !known {
			t.Errorf("%s is a part of callbox that the map of imports does not know", from)
			continue
		}
		for _, path := range p.Imports {
			if to, ours := part(path); ours && to != from && !slices.Contains(may, to) {
				t.Errorf("%s imports %s", p.ImportPath, path)
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if to, ours := part(path); ours && to != from && !slices.Contains(may, to) && !slices.Contains(forTests, to) {
				t.Errorf("a test of %s imports %s", p.ImportPath, path)
			}
		}
	}
}

// A signal ends a program, so only programs look at signals; what they call gets a context. Nor does the name of
// callbox/signal ever collide then.
func TestOnlyProgramsHandleSignals(t *testing.T) {
	seen := false
	for _, p := range packages(t) {
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if path != "os/signal" {
				continue
			}
			if p.Name != "main" {
				t.Errorf("%s imports os/signal and is no program", p.ImportPath)
			}
			seen = seen || p.ImportPath == "callbox"
		}
	}
	if !seen {
		t.Error("main.go does not import os/signal: nothing stops the server in order")
	}
}

// The relay's platform code is its own: other packages see the relay only.
func TestRelayKeepsItsPlatformCode(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if strings.HasPrefix(path, "callbox/relay/internal/") && !strings.HasPrefix(p.ImportPath, "callbox/relay") {
				t.Errorf("%s imports %s", p.ImportPath, path)
			}
		}
	}
}

func TestNoFileNamesTheMachineItWasWrittenOn(t *testing.T) {
	root := testkit.Root(t)
	cmd := exec.Command(testkit.Tool(t, "git"), "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	// Put together here, so that this file does not hold what it looks for.
	marks := []string{"/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "C:" + `\Users`}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		content, err := readText(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for number, line := range strings.Split(content, "\n") {
			for _, mark := range marks {
				if strings.Contains(line, mark) {
					t.Errorf("%s:%d names a path of one machine: %s", name, number+1, strings.TrimSpace(line))
				}
			}
		}
	}
}
