package install

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"callbox/internal/testkit"
)

// version is what the releases of these tests are called.
const version = "1.2.3-4-g0123abc"

// released makes a release for this machine and returns its folder.
func released(t *testing.T, env ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dist")
	cmd := exec.Command(testkit.Tool(t, "go"), "run", "./packaging/release", "-out", dir, "-version", version, "linux/"+runtime.GOARCH)
	cmd.Dir = testkit.Root(t)
	cmd.Env = append(append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("release: %v\n%s", err, out)
	}
	return dir
}

// name is the path of one file of a release.
func name(dir, suffix string) string {
	return filepath.Join(dir, "callbox-"+version+"-linux-"+runtime.GOARCH+suffix)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReleaseInstallsAndRuns(t *testing.T) {
	dir := released(t)
	t.Run("the same bytes twice", func(t *testing.T) {
		again := released(t, "TZ=Asia/Tokyo", "LC_ALL=C", "TMPDIR="+t.TempDir())
		const sums = "SHA256SUMS"
		first, second := read(t, filepath.Join(dir, sums)), read(t, filepath.Join(again, sums))
		if first != second {
			t.Errorf("first\n%sthen\n%s", first, second)
		}
		for line := range strings.Lines(first) {
			sum, file, _ := strings.Cut(strings.TrimSpace(line), "  ")
			if got := fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, filepath.Join(dir, file))))); got != sum {
				t.Errorf("%s: %s is not %s", file, got, sum)
			}
		}
		if n := strings.Count(first, "\n"); n != 3 {
			t.Errorf("%d files:\n%s", n, first)
		}
	})
	unpacked := filepath.Join(t.TempDir(), "unpacked")
	if !t.Run("the archive", func(t *testing.T) { checkArchive(t, name(dir, ".tar.gz"), unpacked) }) {
		return
	}
	t.Run("the image", func(t *testing.T) { checkImage(t, unpacked) })
	t.Run("an empty Debian", func(t *testing.T) {
		r := debian(t)
		t.Run("archive", func(t *testing.T) { r.archive(t, unpacked) })
		t.Run("deb", func(t *testing.T) { r.deb(t, name(dir, ".deb")) })
		t.Run("rpm", func(t *testing.T) { r.rpm(t, name(dir, ".rpm")) })
	})
}

// checkArchive unpacks an archive, and looks at what is in it.
func checkArchive(t *testing.T, path, into string) {
	files := unpack(t, path, into)
	top := strings.TrimSuffix(filepath.Base(path), ".tar.gz") + "/"
	for _, want := range []string{"callbox", "LICENSE", "README.md", "THIRD-PARTY-NOTICES.txt", "docs/protocol.md", "packaging/systemd/callbox.service", "packaging/callbox.yaml", "packaging/nginx/callbox.conf"} {
		if !files[top+want] {
			t.Errorf("%s is missing among %v", want, files)
		}
	}
	program := filepath.Join(into, "callbox")
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
	text := read(t, program)
	if root := testkit.Root(t); strings.Contains(text, root+"/") {
		t.Errorf("the program tells where it was built (%s)", root)
	}
	out, err := exec.Command(program, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "callbox "+version) {
		t.Errorf("version: %v %s", err, out)
	}
	notices := read(t, filepath.Join(into, "THIRD-PARTY-NOTICES.txt"))
	for _, part := range []string{"The Go standard library", "github.com/pion/turn/v3 v", "github.com/coder/websocket v", "Copyright", "Apache License"} {
		if !strings.Contains(notices, part) {
			t.Errorf("the notices say nothing of %q", part)
		}
	}
}

// unpack unpacks an archive without its top folder, and returns the names in it.
func unpack(t *testing.T, path, into string) map[string]bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for archive := tar.NewReader(zipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.ModTime.Unix() != 1700000000 {
			t.Errorf("%s is of %d:%d %s, %v", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime)
		}
		names[h.Name] = true
		_, rest, _ := strings.Cut(h.Name, "/")
		to := filepath.Join(into, filepath.FromSlash(rest))
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, h.FileInfo().Mode().Perm())); err != nil {
			t.Fatal(err)
		}
	}
}
