package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sumsName is the file of checksums.
const sumsName = "SHA256SUMS"

// platform is what Go calls GOOS and GOARCH.
type platform struct{ os, arch string }

func parsePlatforms(args []string) ([]platform, error) {
	if len(args) == 0 {
		return nil, errors.New("name the platforms, as linux/amd64")
	}
	var out []platform
	for _, arg := range args {
		goos, arch, ok := strings.Cut(arg, "/")
		if !ok || goos == "" || arch == "" {
			return nil, fmt.Errorf("%q is not a platform; write it as linux/amd64", arg)
		}
		out = append(out, platform{goos, arch})
	}
	return out, nil
}

// program is the name of the program's file.
func (p platform) program() string {
	if p.os == "windows" {
		return "callbox.exe"
	}
	return "callbox"
}

// release is one version of the program.
type release struct {
	version  string
	commit   string
	time     time.Time // of the commit: every file's
	packages bool      // deb and rpm for Linux
}

// describe asks git what is released. SOURCE_DATE_EPOCH, where it is set, is its time.
func describe(ctx context.Context, version string) (release, error) {
	r := release{version: version}
	if version == "" {
		text, err := output(ctx, "git", "describe", "--tags", "--always", "--dirty")
		if err != nil {
			return r, fmt.Errorf("version (or give it as -version): %w", err)
		}
		r.version = text
	}
	// Without git the version alone says what it is.
	r.commit, _ = output(ctx, "git", "rev-parse", "HEAD")
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		text, err := output(ctx, "git", "log", "-1", "--format=%ct")
		if err != nil {
			return r, fmt.Errorf("time of the commit (or set SOURCE_DATE_EPOCH): %w", err)
		}
		epoch = text
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return r, fmt.Errorf("time of the commit: %w", err)
	}
	r.time = time.Unix(seconds, 0).UTC()
	return r, nil
}

// packageVersion is the version as deb and rpm can have it: beginning with a digit, without a hyphen, and in their order. What
// precedes a version (1.0.0-rc.1) has a tilde, what git counts after it (1.0.0-3-gabc) a plus sign.
func (r release) packageVersion() string {
	v := strings.TrimPrefix(r.version, "v")
	if v == "" || v[0] < '0' || v[0] > '9' || !strings.Contains(v, ".") {
		v = "0.0.0-" + v // git knows no tag: all versions before the first
	}
	main, rest, cut := strings.Cut(v, "-")
	if !cut {
		return main
	}
	sign := "+"
	for _, before := range []string{"alpha", "beta", "pre", "rc"} {
		if strings.HasPrefix(rest, before) {
			sign = "~"
		}
	}
	return main + sign + strings.ReplaceAll(rest, "-", ".")
}

// make empties the folder and fills it. It returns the names of the files.
func (r release) make(ctx context.Context, dir string, platforms []platform) ([]string, error) {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "callbox-release")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	text, err := notices(ctx)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, p := range platforms {
		made, err := r.platform(ctx, work, dir, p, text)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", p.os, p.arch, err)
		}
		files = append(files, made...)
	}
	slices.Sort(files)
	var sums bytes.Buffer
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), name)
	}
	return append(files, sumsName), os.WriteFile(filepath.Join(dir, sumsName), sums.Bytes(), 0o644)
}

// platform makes the files of one platform.
func (r release) platform(ctx context.Context, work, dir string, p platform, notices []byte) ([]string, error) {
	stage := filepath.Join(work, p.os+"-"+p.arch)
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return nil, err
	}
	if err := r.build(ctx, filepath.Join(stage, p.program()), p); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(stage, noticesName), notices, 0o644); err != nil {
		return nil, err
	}
	content, err := contents(stage, p)
	if err != nil {
		return nil, err
	}
	name := "callbox-" + r.version + "-" + p.os + "-" + p.arch
	write, suffix := writeTar, ".tar.gz"
	if p.os == "windows" {
		write, suffix = writeZip, ".zip"
	}
	f, err := os.Create(filepath.Join(dir, name+suffix))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(write(f, name, content, r.time), f.Close()); err != nil {
		return nil, err
	}
	files := []string{name + suffix}
	if r.packages && p.os == "linux" {
		made, err := r.linuxPackages(ctx, stage, dir, p)
		if err != nil {
			return nil, err
		}
		files = append(files, made...)
	}
	return files, nil
}

// build compiles a static program that tells neither where nor by whom it was built.
func (r release) build(ctx context.Context, path string, p platform) error {
	const vars = "callbox/internal/cli."
	flags := "-s -w -buildid= -X " + vars + "version=" + r.version + " -X callbox/internal/doctor.built=" + strconv.FormatInt(r.time.Unix(), 10)
	if r.commit != "" {
		flags += " -X " + vars + "commit=" + r.commit
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// twice makes everything two times and compares.
func (r release) twice(ctx context.Context, platforms []platform) error {
	var made [2]string
	for i := range made {
		dir, err := os.MkdirTemp("", "callbox-release")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if _, err := r.make(ctx, dir, platforms); err != nil {
			return err
		}
		sums, err := os.ReadFile(filepath.Join(dir, sumsName))
		if err != nil {
			return err
		}
		made[i] = string(sums)
	}
	if made[0] != made[1] {
		return fmt.Errorf("not reproducible; first\n%sthen\n%s", made[0], made[1])
	}
	fmt.Print(made[0])
	return nil
}

// output runs a program and returns what it prints, without the last line's end.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
