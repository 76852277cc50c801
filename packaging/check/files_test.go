package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"callbox/internal/testkit"
)

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// takes asks callbox whether it understands the arguments of serve.
func takes(t *testing.T, arguments ...string) {
	t.Helper()
	if out, diagnostics, code := testkit.CLI(t, "", append([]string{"config"}, arguments...)...); code != 0 {
		t.Errorf("callbox serve %s: %s%s", strings.Join(arguments, " "), out, diagnostics)
	}
}

func TestScriptsAreShell(t *testing.T) {
	sh := testkit.Tool(t, "sh")
	for _, pattern := range []string{"packaging/deb/*", "packaging/rpm/*", ".ci/*", "packaging/cluster/demo"} {
		paths, err := filepath.Glob(filepath.Join(testkit.Root(t), pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v, %v", pattern, paths, err)
		}
		for _, path := range paths {
			if out, err := exec.Command(sh, "-n", path).CombinedOutput(); err != nil {
				t.Errorf("%s: %v %s", path, err, out)
			}
		}
	}
}

// compose is as much of a compose file as matters here.
type compose struct {
	Services map[string]struct {
		Image       string
		Build       struct{ Context, Dockerfile string }
		Command     []string
		Volumes     []string
		Networks    any
		NetworkMode string `yaml:"network_mode"`
		Ports       []string
		DependsOn   any `yaml:"depends_on"`
	}
	Volumes, Networks map[string]any
}

func TestComposeFilesNameWhatThereIs(t *testing.T) {
	for _, path := range []string{"packaging/docker/compose.yaml", "packaging/cluster/compose.yaml"} {
		text := read(t, path)
		// The commented lines are a configuration too.
		for name, text := range map[string]string{path: text, path + ", other lines": other(text)} {
			var c compose
			if err := yaml.Unmarshal([]byte(text), &c); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			ours := 0
			for service, s := range c.Services {
				if s.Build.Dockerfile == "" {
					if s.Image == "" {
						t.Errorf("%s: %s has neither image nor build", name, service)
					}
					continue
				}
				ours++
				context := filepath.Join(testkit.Root(t), filepath.Dir(path), s.Build.Context)
				if context != testkit.Root(t) {
					t.Errorf("%s: %s is built in %s", name, service, context)
				}
				if _, err := os.Stat(filepath.Join(context, s.Build.Dockerfile)); err != nil {
					t.Errorf("%s: %s: %v", name, service, err)
				}
				if len(s.Command) == 0 || s.Command[0] != "serve" {
					t.Fatalf("%s: %s runs %q", name, service, s.Command)
				}
				takes(t, s.Command[1:]...)
				for _, volume := range s.Volumes {
					source, target, _ := strings.Cut(volume, ":")
					if _, ok := c.Volumes[source]; !ok || !strings.HasPrefix(target, "/") {
						t.Errorf("%s: %s mounts %s, of which the file says nothing", name, service, volume)
					}
				}
			}
			if ours == 0 {
				t.Errorf("%s: no callbox in it", name)
			}
		}
	}
}

// other is a compose file with the lines that are commented out in the place of those that they replace.
func other(text string) string {
	var out []string
	replaced := regexp.MustCompile(`^\s*(network_mode|command):`)
	commented := regexp.MustCompile(`^(\s*)# ((?:ports|command): .*)$`)
	changes := regexp.MustCompile(`(?m)^\s+# command:`).MatchString(text)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if m := commented.FindStringSubmatch(line); m != nil {
			line = m[1] + m[2]
		} else if changes && replaced.MatchString(line) {
			continue
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestTheServicesFileOfSettingsIsTaken(t *testing.T) {
	text := read(t, "packaging/callbox.yaml")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"as it is": text, "with its examples": regexp.MustCompile(`(?m)^# ([a-z-]+: \S)`).ReplaceAllString(text, "$1"),
	} {
		path := filepath.Join(dir, "callbox.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, diagnostics, code := testkit.CLI(t, "", "config", "--config", path)
		if code != 0 || (name != "as it is") != strings.Contains(out, "calls.example.org") {
			t.Errorf("%s: %s%s", name, out, diagnostics)
		}
	}
}

func TestTheUnitsCommandIsTaken(t *testing.T) {
	unit := read(t, "packaging/systemd/callbox.service")
	for _, key := range []string{"ExecStart", "ExecReload"} {
		m := regexp.MustCompile(`(?m)^` + key + `=/usr/bin/callbox (serve|reload) (.*)$`).FindStringSubmatch(unit)
		if m == nil {
			t.Fatalf("no %s", key)
		}
		arguments := strings.Fields(strings.ReplaceAll(m[2], "/etc/callbox", filepath.Join(testkit.Root(t), "packaging")))
		takes(t, arguments...)
	}
}
