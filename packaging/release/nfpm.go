package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// nfpm writes deb and rpm without their own tools.
const nfpm = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0"

// linuxPackages makes deb and rpm of what lies in a folder.
func (r release) linuxPackages(ctx context.Context, stage, dir string, p platform) ([]string, error) {
	var files []string
	for _, packager := range []string{"deb", "rpm"} {
		name := fmt.Sprintf("callbox-%s-%s-%s.%s", r.version, p.os, p.arch, packager)
		cmd := exec.CommandContext(ctx, "go", "run", nfpm, "package", "--config", "packaging/nfpm.yaml", "--packager", packager, "--target", filepath.Join(dir, name))
		cmd.Env = append(os.Environ(), "ARCH="+p.arch, "VERSION="+r.packageVersion(), "DIR="+stage,
			fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.time.Unix()))
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", packager, err, out)
		}
		files = append(files, name)
	}
	return files, nil
}
