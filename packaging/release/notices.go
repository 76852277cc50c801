package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// noticesName is the file with the licenses of what the program is made of.
const noticesName = "THIRD-PARTY-NOTICES.txt"

// systems are those whose programs are handed out; each may be made of other modules.
func systems() []string { return []string{"linux", "darwin", "windows"} }

// component is a module, or Go itself, of which something is in the program.
type component struct {
	name, version string
	dir           string
	folders       []string // of the packages in the program, relative to dir
}

// notices are the license texts of everything that is linked into the program on any platform, sorted by module.
func notices(ctx context.Context) ([]byte, error) {
	found := map[string]*component{}
	for _, system := range systems() {
		if err := collect(ctx, system, found); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	var out bytes.Buffer
	out.WriteString("callbox contains the following software of others, under the licenses that follow each name.\n")
	for _, name := range names {
		c := found[name]
		texts, err := c.licenses()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s", strings.Repeat("=", 80), strings.TrimSpace(c.name+" "+c.version), texts)
	}
	return out.Bytes(), nil
}

// collect adds what the program is made of on one system.
func collect(ctx context.Context, system string, found map[string]*component) error {
	type pkg struct {
		Dir      string
		Standard bool
		Module   *struct {
			Path, Version, Dir string
			Main               bool
		}
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=Dir,Standard,Module", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS="+system)
	cmd.Stderr = os.Stderr
	list, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go list for %s: %w", system, err)
	}
	for decoder := json.NewDecoder(bytes.NewReader(list)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch {
		case p.Standard:
			if _, ok := found["Go"]; !ok {
				root, err := output(ctx, "go", "env", "GOROOT")
				if err != nil {
					return err
				}
				found["Go"] = &component{name: "The Go standard library and runtime", dir: root}
			}
		case p.Module == nil || p.Module.Main:
		default:
			c, ok := found[p.Module.Path]
			if !ok {
				c = &component{name: p.Module.Path, version: p.Module.Version, dir: p.Module.Dir}
				found[p.Module.Path] = c
			}
			folder, err := filepath.Rel(c.dir, p.Dir)
			if err != nil {
				return err
			}
			c.folders = append(c.folders, folder)
		}
	}
}

// licenses are the license and notice files from the module's top down to its packages in the program: a folder that came
// from elsewhere has its own.
func (c *component) licenses() (string, error) {
	folders := map[string]bool{".": true}
	for _, folder := range c.folders {
		for ; folder != "."; folder = filepath.Dir(folder) {
			folders[folder] = true
		}
	}
	var paths []string
	for folder := range folders {
		entries, err := os.ReadDir(filepath.Join(c.dir, folder))
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if licenseName(e) {
				paths = append(paths, filepath.Join(folder, e.Name()))
			}
		}
	}
	if len(paths) == 0 {
		return "", fmt.Errorf("no license file in %s", c.dir)
	}
	slices.Sort(paths)
	var out strings.Builder
	for _, path := range paths {
		text, err := os.ReadFile(filepath.Join(c.dir, path))
		if err != nil {
			return "", err
		}
		if len(paths) > 1 {
			fmt.Fprintf(&out, "--- %s\n\n", filepath.ToSlash(path))
		}
		out.WriteString(strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")) + "\n\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n", nil
}

func licenseName(e fs.DirEntry) bool {
	return e.Type().IsRegular() && regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-._].*)?$`).MatchString(e.Name()) &&
		!strings.HasSuffix(e.Name(), ".go")
}
