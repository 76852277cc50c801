package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// reference is docs/configuration.md, made of the tags of Config.
func reference(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# Configuration

Nothing needs to be configured. Each setting is

- a flag of ` + "`callbox serve`" + `: ` + "`--turn-ttl 30m`" + `; a list is a repeated flag,
- an environment variable: ` + "`CALLBOX_TURN_TTL=30m`" + `; the values of a list are separated by spaces,
- a key of the YAML file that ` + "`--config`" + ` names: ` + "`turn-ttl: 30m`" + `; a list is ` + "`[one, two]`" + `.

A flag comes before a variable, a variable before the file, the file before the default. ` + "`callbox config`" + ` shows what is in effect, where each
value comes from, and no secret. A fault in any of them, an unknown key too, is named together with all others, and nothing is started.
Durations are written as 90s, 30m or 12h, sizes as 64KiB or 4MB, rates as 20M.

Settings with ↻ can change while a server runs: ` + "`callbox reload`" + `, or SIGHUP, takes them over. Others wait for a restart, and are named.

This page is made of the program's own description of its settings; a test holds it to that.
`)
	titles := []struct{ group, title string }{
		{"general", "General"}, {"web", "Web"}, {"accounts", "Accounts"}, {"relay", "Relay"}, {"signaling", "Signaling"}, {"cluster", "Cluster"},
	}
	described := 0
	c := reflect.TypeFor[Config]()
	for _, title := range titles {
		fmt.Fprintf(&b, "\n## %s\n\n| setting | value | default | |\n| --- | --- | --- | --- |\n", title.title)
		for i := range c.NumField() {
			tag := c.Field(i).Tag
			if tag.Get("group") != title.group {
				continue
			}
			described++
			name, value := tag.Get("name"), tag.Get("placeholder")
			if tag.Get("reload") != "" {
				name += "` ↻"
			} else {
				name += "`"
			}
			if lower, upper := tag.Get("min"), tag.Get("max"); lower != "" {
				value += " (" + lower + " to " + upper + ")"
			}
			def := tag.Get("def")
			if def != "" {
				def = "`" + def + "`"
			}
			fmt.Fprintf(&b, "| `%s | %s | %s | %s |\n", name, cell(value), cell(def), cell(tag.Get("help")))
		}
	}
	if described != c.NumField() {
		t.Fatalf("%d of %d settings are described: is there a new group?", described, c.NumField())
	}
	return b.String()
}

// cell keeps a text from ending its cell of a table, and from being taken for HTML.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(s)
}

func TestTheReferenceIsTrue(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	want := reference(t)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/configuration.md differs from the settings; write it anew with: UPDATE_GOLDEN=1 go test ./internal/config -run Reference")
	}
}
