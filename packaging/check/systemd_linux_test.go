package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"callbox/internal/testkit"
)

// exposure is the most that systemd-analyze security may say of the unit, in tenths: 0 is closed, 100 open.
const exposure = "20"

// units copies the units to a folder, with a program that is on this machine in callbox's place.
func units(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"callbox.service", "callbox.socket"} {
		text := strings.ReplaceAll(read(t, "packaging/systemd/"+name), "/usr/bin/callbox", testkit.Tool(t, "true"))
		text = strings.ReplaceAll(text, "file:///usr/share/doc/callbox/README.md", "https://callbox.example")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestUnitsAreWhatSystemdTakes(t *testing.T) {
	analyze := testkit.Tool(t, "systemd-analyze")
	dir := units(t)
	for _, name := range []string{"callbox.service", "callbox.socket"} {
		out, err := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", filepath.Join(dir, name)).CombinedOutput()
		if err != nil || strings.Contains(string(out), "callbox") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestTheServiceIsConfined(t *testing.T) {
	path := filepath.Join(units(t), "callbox.service")
	out, err := exec.Command(testkit.Tool(t, "systemd-analyze"), "security", "--offline=true", "--threshold="+exposure, path).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSysusersMakesTheUser(t *testing.T) {
	tool := testkit.Tool(t, "systemd-sysusers")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "--root="+dir, filepath.Join(testkit.Root(t), "packaging/systemd/sysusers.conf")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made, err := os.ReadFile(filepath.Join(dir, "etc/passwd"))
	if err != nil || !strings.HasPrefix(string(made), "callbox:x:") || !strings.Contains(string(made), ":/var/lib/callbox:") {
		t.Errorf("%v %s", err, made)
	}
}
