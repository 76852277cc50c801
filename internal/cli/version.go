package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// What the linker sets in a release, as in -X callbox/internal/cli.version=1.2.3; nothing else does.
var version, commit string

// versionCmd shows the version.
type versionCmd struct {
	JSON bool `name:"json" help:"As one JSON object."`
}

// versionInfo is what a build knows of itself.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree that differs from Commit
	Time     string `json:"time,omitempty"`     // of Commit, RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readVersion takes the release's version where the linker set one, else what the Go tool recorded.
func readVersion() versionInfo {
	v := versionInfo{Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			case "vcs.time":
				v.Time = s.Value
			}
		}
		if v.Version == "" && info.Main.Version != "(devel)" {
			v.Version = info.Main.Version
		}
	}
	if v.Version == "" {
		v.Version = "devel"
	}
	return v
}

// Run prints the version.
func (cmd *versionCmd) Run(_ context.Context, c *call) error {
	v := readVersion()
	if cmd.JSON {
		return c.printJSON(v)
	}
	line := "callbox " + v.Version
	if v.Commit != "" {
		line += " commit " + v.Commit[:min(12, len(v.Commit))]
		if v.Modified {
			line += " (modified)"
		}
	}
	_, err := fmt.Fprintf(c.Stdout, "%s %s %s\n", line, v.Go, v.Platform)
	return err
}
