package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"callbox/internal/testkit"
)

func TestCompletionCodeNamesTheProgram(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for shell, want := range map[string]string{
		"bash": "complete -o default -o bashdefault -C " + program + " callbox",
		"zsh":  "bashcompinit",
		"fish": "complete -f -c callbox",
	} {
		if out := ok(t, "", "completion", shell); !strings.Contains(out, want) || !strings.Contains(out, program) {
			t.Errorf("%s: %s", shell, out)
		}
	}
	fails(t, exitUsage, "shell", "completion", "tcsh")
	fails(t, exitUsage, "shell", "completion")
}

func TestLinesAreCompleted(t *testing.T) {
	for line, want := range map[string]string{
		"callbox us":                     "user",
		"callbox user ":                  "passwd",
		"callbox user remove --da":       "--data",
		"callbox serve --metrics-l":      "--metrics-listen",
		"callbox serve --listen :1 --tu": "--turns",
		"callbox completion f":           "fish",
	} {
		t.Setenv("COMP_LINE", line)
		r := runWith(t, Env{Environ: []string{"COMP_LINE=" + line}})
		if r.status != exitOK || r.stderr != "" || !strings.Contains("\n"+r.stdout, "\n"+want+"\n") {
			t.Errorf("%q goes on with %+v, want %q among it", line, r, want)
		}
	}
}

// The code is what bash understands, and the program answers it.
func TestBashCompletes(t *testing.T) {
	bash := testkit.Tool(t, "bash")
	script := filepath.Join(t.TempDir(), "script")
	writeFile(t, script, `set -e
source <("$1" completion bash)
complete -p callbox >/dev/null
COMP_LINE="callbox rel" COMP_POINT=11 "$1" callbox rel ""
`)
	out, err := exec.CommandContext(t.Context(), bash, script, testkit.Binary(t)).CombinedOutput()
	if err != nil || string(out) != "reload\n" {
		t.Errorf("%v: %s", err, out)
	}
}
