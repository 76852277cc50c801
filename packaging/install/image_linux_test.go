package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// stage is one FROM of a Dockerfile and what follows it.
type stage struct {
	from, name   string
	instructions [][2]string // instruction, rest
}

// stages reads a Dockerfile as its reference describes it: comments, lines joined by a backslash, one instruction a line.
func stages(t *testing.T, path string) []stage {
	t.Helper()
	known := map[string]bool{}
	for _, word := range strings.Fields("ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN SHELL STOPSIGNAL USER VOLUME WORKDIR") {
		known[word] = true
	}
	var out []stage
	text := strings.ReplaceAll(read(t, path), "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case !known[word]:
			t.Fatalf("%s: %q is not an instruction", path, word)
		case word == "FROM":
			f := strings.Fields(rest)
			s := stage{from: f[0]}
			if len(f) == 3 && f[1] == "AS" {
				s.name = f[2]
			}
			out = append(out, s)
		case len(out) == 0:
			t.Fatalf("%s: %s before FROM", path, word)
		default:
			last := &out[len(out)-1]
			last.instructions = append(last.instructions, [2]string{word, strings.TrimSpace(rest)})
		}
	}
	return out
}

// image is what the last stage of a Dockerfile makes of files that the stage before it has made.
type image struct {
	dir                string
	uid, gid           int
	env                []string
	entrypoint, cmd    []string
	check              []string
	ports, volumes     []string
	instructionsUnread []string
}

// assemble does what the instructions say, without an engine. made gives the files that earlier stages copied from.
func assemble(t *testing.T, s stage, dir string, made map[string]string) image {
	t.Helper()
	i := image{dir: dir}
	list := func(text string) (out []string) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%q is not a list of words: a shell would be needed", text)
		}
		return out
	}
	owner := func(text string) (uid, gid int) {
		t.Helper()
		u, g, _ := strings.Cut(text, ":")
		uid, errUser := strconv.Atoi(u)
		gid, errGroup := strconv.Atoi(g)
		if err := errors.Join(errUser, errGroup); err != nil {
			t.Fatalf("there are no names in an empty image: %q", text)
		}
		return uid, gid
	}
	for _, in := range s.instructions {
		switch in[0] {
		case "COPY":
			var from, chown string
			var paths []string
			for _, word := range strings.Fields(in[1]) {
				if v, ok := strings.CutPrefix(word, "--from="); ok {
					from = v
				} else if v, ok := strings.CutPrefix(word, "--chown="); ok {
					chown = v
				} else {
					paths = append(paths, word)
				}
			}
			source, ok := made[from+":"+paths[0]]
			if !ok {
				t.Fatalf("%s: nothing is at %s of stage %q", in[1], paths[0], from)
			}
			to := filepath.Join(dir, paths[1])
			copyTo(t, source, to)
			if chown != "" {
				uid, gid := owner(chown)
				if err := os.Chown(to, uid, gid); err != nil {
					t.Fatal(err)
				}
			}
		case "ENV":
			i.env = append(i.env, in[1])
		case "USER":
			i.uid, i.gid = owner(in[1])
		case "ENTRYPOINT":
			i.entrypoint = list(in[1])
		case "CMD":
			i.cmd = list(in[1])
		case "HEALTHCHECK":
			_, words, _ := strings.Cut(in[1], "CMD ")
			i.check = list(words)
		case "EXPOSE":
			i.ports = strings.Fields(in[1])
		case "VOLUME":
			i.volumes = strings.Fields(in[1])
		default:
			i.instructionsUnread = append(i.instructionsUnread, in[0])
		}
	}
	return i
}

// copyTo copies a file or a folder, with its mode.
func copyTo(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.CopyFS(to, os.DirFS(from)), os.MkdirAll(to, 0o755), os.Chmod(to, info.Mode().Perm()))
	} else {
		err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, []byte(read(t, from)), info.Mode().Perm()), os.Chmod(to, info.Mode().Perm()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// command runs something in the image as the engine would.
func (i image) command(words []string, env ...string) *exec.Cmd {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, i.env...), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: i.dir, Credential: &syscall.Credential{Uid: uint32(i.uid), Gid: uint32(i.gid)}}
	return cmd
}

// checkImage makes the image of the program by hand and runs it: there is nothing else in it.
func checkImage(t *testing.T, unpacked string) {
	if os.Geteuid() != 0 {
		testkit.Lack(t, "a folder of its own as root of the file system needs root")
	}
	all := stages(t, filepath.Join(testkit.Root(t), "packaging/docker/Dockerfile"))
	last := all[len(all)-1]
	if len(all) != 2 || last.from != "scratch" || all[0].name != "build" {
		t.Fatalf("stages: %+v", all)
	}
	goVersion := ""
	for line := range strings.Lines(read(t, filepath.Join(testkit.Root(t), "go.mod"))) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "go "); ok {
			goVersion = v
		}
	}
	if all[0].from != "golang:"+goVersion {
		t.Errorf("it is built by %s; go.mod asks for %s", all[0].from, goVersion)
	}
	top := t.TempDir()
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	i := assemble(t, last, filepath.Join(top, "image"), map[string]string{
		"build:/out/callbox": filepath.Join(unpacked, "callbox"), "build:/out/doc": filepath.Join(unpacked, "docs"), "build:/out/data": data,
	})
	for _, fault := range i.instructionsUnread {
		t.Errorf("%s: this test does not know what it does", fault)
	}
	if i.uid == 0 || len(i.check) == 0 || len(i.ports) != 2 || len(i.volumes) != 1 {
		t.Errorf("user %d, health check %q, ports %q, volumes %q", i.uid, i.check, i.ports, i.volumes)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.Port(t, "127.0.0.1"))
	// --listen alone differs from what the image says, as other tests have the usual port.
	env := []string{"CALLBOX_LISTEN=" + addr, "CALLBOX_METRICS_LISTEN=off"}
	p := testkit.Start(t, "image", i.command(append(i.entrypoint, i.cmd...), env...))
	answers(t, p, addr)
	if out, err := i.command(i.check, env...).CombinedOutput(); err != nil {
		t.Errorf("health check: %v %s", err, out)
	}
	// The first user is made as the comment in the compose file says.
	add := i.command([]string{"/usr/local/bin/callbox", "user", "add", "ada", "--password-stdin"}, env...)
	add.Stdin = strings.NewReader("correct horse battery\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Errorf("user add: %v %s", err, out)
	}
	ends(t, p)
	testkit.Eventually(t, 10*time.Second, "the health check sees the end", func() error {
		if i.command(i.check, env...).Run() == nil {
			return errors.New("healthy")
		}
		return nil
	})
}
