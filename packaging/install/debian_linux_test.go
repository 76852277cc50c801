package install

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// root is the base of a Debian in a folder, in which programs run with chroot.
type root struct{ dir string }

// debian downloads the base of this machine's own Debian from where its apt gets it.
func debian(t *testing.T) root {
	t.Helper()
	if os.Geteuid() != 0 {
		testkit.Lack(t, "a folder of its own as root of the file system needs root")
	}
	mirror, suite := aptSource(t)
	r := root{filepath.Join(t.TempDir(), "debian")}
	cmd := exec.Command(testkit.Tool(t, "debootstrap"), "--variant=minbase", suite, r.dir, mirror)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if proxy := aptProxy(t); proxy != "" {
		cmd.Env = append(cmd.Env, "http_proxy="+proxy, "https_proxy="+proxy)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("debootstrap %s %s: %v\n%s", suite, mirror, err, out)
	}
	if out, err := r.command("sh", "-c", "command -v go || ls /usr/local/go").CombinedOutput(); err == nil {
		t.Fatalf("there is a Go in it: %s", out)
	}
	return r
}

// aptSource is the mirror and the name of this machine's Debian, as apt is configured.
func aptSource(t *testing.T) (mirror, suite string) {
	t.Helper()
	for line := range strings.Lines(read(t, "/etc/os-release")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			suite = name
		}
	}
	out, err := exec.Command(testkit.Tool(t, "apt-get"), "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		t.Fatalf("apt-get indextargets: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == suite && f[1] == "main" {
			return f[2], suite
		}
	}
	testkit.Lack(t, fmt.Sprintf("apt has no source of Debian %q:\n%s", suite, out))
	return "", ""
}

// aptProxy is the proxy that apt uses, if any.
func aptProxy(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(testkit.Tool(t, "apt-config"), "dump", "--format", "%v", "Acquire::http::Proxy").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// command is exec.Command inside.
func (r root) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("chroot", append([]string{r.dir, name}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// run runs a program inside to its end.
func (r root) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := r.command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// exists tells whether there is something at a path inside.
func (r root) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, path))
	return err == nil
}

// answers waits until a server that was started says that it is well.
func answers(t *testing.T, p *testkit.Process, addr string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	testkit.Eventually(t, 60*time.Second, "callbox answers", func() error {
		if p.Ended() {
			t.Fatalf("it has ended:\n%s", p.Output())
		}
		resp, err := client.Get("http://" + addr + "/healthz")
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
}

// ends asks a server to stop.
func ends(t *testing.T, p *testkit.Process) {
	t.Helper()
	p.Terminate()
	if status := p.Wait(40 * time.Second); status != 0 {
		t.Errorf("it ended with status %d", status)
	}
}

// archive is what somebody does who has downloaded it: unpack and start.
func (r root) archive(t *testing.T, unpacked string) {
	if err := os.CopyFS(filepath.Join(r.dir, "opt/callbox"), os.DirFS(unpacked)); err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.Port(t, "127.0.0.1"))
	p := testkit.Start(t, "callbox", r.command("/opt/callbox/callbox", "--listen", addr, "--data", "/var/tmp/callbox-data", "--metrics-listen", "off"))
	answers(t, p, addr)
	if out := r.run(t, "/opt/callbox/callbox", "healthcheck", "--data", "/var/tmp/callbox-data"); !strings.Contains(out, "healthy") {
		t.Errorf("healthcheck: %s", out)
	}
	ends(t, p)
}

// deb installs the package with Debian's own tool, where systemd is not, runs what the unit says, and takes it off again.
func (r root) deb(t *testing.T, path string) {
	if r.exists("/run/systemd/system") || r.exists("/usr/bin/systemctl") {
		t.Fatal("there is a systemd in it")
	}
	if err := os.WriteFile(filepath.Join(r.dir, "callbox.deb"), []byte(read(t, path)), 0o644); err != nil {
		t.Fatal(err)
	}
	r.run(t, "dpkg", "-i", "/callbox.deb")
	if v := r.run(t, "dpkg-query", "-W", "-f", "${Version}", "callbox"); v != "1.2.3+4.g0123abc" {
		t.Errorf("version %q", v)
	}
	r.service(t)

	writeFile(t, filepath.Join(r.dir, "etc/callbox/callbox.yaml"), "# mine\n")
	r.run(t, "dpkg", "-i", "--force-confold", "/callbox.deb") // as an upgrade does
	r.run(t, "dpkg", "-r", "callbox")
	if r.exists("/usr/bin/callbox") || !r.exists("/var/lib/callbox/control.sock.was") || !r.exists("/etc/callbox/callbox.yaml") {
		t.Error("removing took the data, or left the program")
	}
	r.run(t, "dpkg", "-P", "callbox")
	if r.exists("/var/lib/callbox") || r.exists("/etc/callbox") {
		t.Error("purging left the data")
	}
}

// rpm does the same with the other package. Its tool works on the folder from outside.
func (r root) rpm(t *testing.T, path string) {
	tool := testkit.Tool(t, "rpm")
	rpm := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(tool, append([]string{"--root", r.dir, "--dbpath", "/var/lib/rpm"}, args...)...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("rpm %v: %v\n%s%s", args, err, out, errs.String())
		}
		return string(out)
	}
	if out, err := exec.Command(tool, "-K", "--nosignature", path).CombinedOutput(); err != nil {
		t.Errorf("digests: %v %s", err, out)
	}
	rpm("-i", "--nodeps", path)
	if out := rpm("-q", "--qf", "%{VERSION}", "callbox"); out != "1.2.3+4.g0123abc" {
		t.Errorf("version %q", out)
	}
	r.service(t)
	rpm("-e", "callbox")
	if r.exists("/usr/bin/callbox") || !r.exists("/var/lib/callbox") {
		t.Error("removing took the data, or left the program")
	}
}

// service starts what the unit starts, as its user, and looks at it.
func (r root) service(t *testing.T) {
	t.Helper()
	for _, file := range []string{
		"/usr/lib/systemd/system/callbox.socket", "/usr/share/doc/callbox/copyright", "/usr/share/doc/callbox/docs/protocol.md",
		"/usr/share/doc/callbox/THIRD-PARTY-NOTICES.txt", "/usr/share/bash-completion/completions/callbox", "/etc/callbox/callbox.yaml",
	} {
		if !r.exists(file) {
			t.Errorf("%s is not installed", file)
		}
	}
	var start []string
	for line := range strings.Lines(read(t, filepath.Join(r.dir, "usr/lib/systemd/system/callbox.service"))) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart="); ok {
			start = strings.Fields(command)
		}
	}
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.Port(t, "127.0.0.1"))
	as := func(args ...string) *exec.Cmd {
		cmd := r.command(args[0], args[1:]...)
		cmd.Args = append([]string{cmd.Args[0], "--userspec=callbox:callbox"}, cmd.Args[1:]...)
		cmd.Env = append(cmd.Env, "CALLBOX_LISTEN="+addr, "CALLBOX_METRICS_LISTEN=off")
		return cmd
	}
	p := testkit.Start(t, "callbox", as(start...))
	answers(t, p, addr)
	if out, err := as("/usr/bin/callbox", "reload", "--data", "/var/lib/callbox").CombinedOutput(); err != nil {
		t.Errorf("reload: %v %s", err, out)
	}
	ends(t, p)
	info, err := os.Stat(filepath.Join(r.dir, "var/lib/callbox"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v, %v", info.Mode(), err)
	}
	writeFile(t, filepath.Join(r.dir, "var/lib/callbox/control.sock.was"), "kept")
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
