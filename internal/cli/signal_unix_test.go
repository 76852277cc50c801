//go:build unix

package cli

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"callbox/internal/control"
	"callbox/internal/testkit"
)

// TestFirstSignalStopsInOrderSecondAtOnce runs the program itself.
func TestFirstSignalStopsInOrderSecondAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		hang    bool // a client that sends half a request and makes the server wait
		signals int
		want    int
	}{
		"one": {false, 1, 0}, "two": {true, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dataDir(t)
			cmd := exec.CommandContext(t.Context(), testkit.Binary(t), "--listen", "127.0.0.1:0", "--data", dir, "--log-format", "json")
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var addr string
			waitFor(t, func() bool {
				h, err := control.NewClient(dir).Health(t.Context())
				addr = h.Addr
				return err == nil
			})
			if c.hang {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, "POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"); err != nil {
					t.Fatal(err)
				}
			}
			lines := bufio.NewScanner(stderr)
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() && !strings.Contains(lines.Text(), `"stopping"`) {
			}
			begun := time.Now()
			if c.signals == 2 {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			var rest strings.Builder
			for lines.Scan() {
				rest.WriteString(lines.Text() + "\n")
			}
			err = cmd.Wait()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != c.want {
				t.Errorf("status %d, want %d: %s", got, c.want, rest.String())
			}
			if took := time.Since(begun); c.signals == 2 && took > 2*time.Second {
				t.Errorf("took %v after the second signal", took)
			}
		})
	}
}
