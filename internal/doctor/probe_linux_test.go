package doctor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// holdsItself is what a test sees of a port that it holds.
const holdsItself = "this process itself"

func readTable(table string, port uint16) { sockets(table, "tcp", port) }

func TestSocketTable(t *testing.T) {
	table := "  sl  local_address\n" +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1\n" +
		"   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 31338 1\n"
	if got := sockets(table, "tcp", 8080); len(got) != 1 || got[0].inode != "31337" || got[0].uid != "1000" {
		t.Errorf("%+v", got)
	}
	if got := sockets(table, "udp", 8080); len(got) != 2 {
		t.Errorf("UDP has no state to go by: %+v", got)
	}
}

func TestCapabilitiesAreRead(t *testing.T) {
	if effective("Name:\tx\nCapEff:\t0000000000000400\n") != 1<<bindService || effective("CapEff:\tnonsense\n") != 0 || effective("") != 0 {
		t.Error("misread")
	}
	if p := lookAtPrivilege(); !p.Known || p.Binary == "" {
		t.Errorf("%+v", p)
	}
}

// TestFullDescriptors lowers this process's bound for a moment to what it has open already.
func TestFullDescriptors(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	low := was
	low.Cur = uint64(lookAtFiles().Open + 16)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	got := files(lookAtFiles())
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	expect(t, got, Fail, "hardly any connection", "LimitNOFILE")
}

// TestBuffersAreMeasured asks for more than an int holds after doubling: no kernel gives it.
func TestBuffersAreMeasured(t *testing.T) {
	expect(t, buffers(lookAtBuffers(1<<16)), OK, "64 KiB", "")
	expect(t, buffers(lookAtBuffers(1<<30+1<<29)), Warn, "that the relay asks for", "rmem_max")
}

// TestDirectoryOfAnother takes root, who can give things away.
func TestDirectoryOfAnother(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("giving a directory away takes root")
		}
		t.Skip("giving a directory away takes root")
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "secret"), 4242, 4242); err != nil {
		t.Fatal(err)
	}
	expect(t, data(lookAtData(dir)), Fail, "secret belongs to user number 4242", "chown -R 0")
	if err := os.Chown(dir, 4242, 4242); err != nil {
		t.Fatal(err)
	}
	expect(t, data(lookAtData(dir)), Fail, "belongs to user number 4242, and this is user number 0", "sudo -u '#4242'")
}

// TestFullDisk mounts a file system of a few KiB in a mount namespace of its own, and runs this test inside.
func TestFullDisk(t *testing.T) {
	const inside = "TEST_DOCTOR_TINY"
	if dir := os.Getenv(inside); dir != "" {
		expect(t, disk(lookAtDisk(dir)), Fail, "free for", "make room")
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=64k tiny "$1" && exec "$2" -test.run '^TestFullDisk$' -test.v`, "sh", dir, self)
	cmd.Env = append(os.Environ(), inside+"="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "--- PASS: TestFullDisk") {
		return
	}
	var exit *exec.ExitError
	if os.Getenv("CI") == "" && (!errors.As(err, &exit) || !strings.Contains(string(out), "TestFullDisk")) {
		t.Skipf("no file system can be mounted here: %v %s", err, out)
	}
	t.Fatalf("%v\n%s", err, out)
}
