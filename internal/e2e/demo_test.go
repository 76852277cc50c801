//go:build unix

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// demoPort returns the first of four port numbers in a row that are free at this moment.
func demoPort(t *testing.T) int {
	t.Helper()
	for range 20 {
		first := testkit.Port(t, "127.0.0.1")
		if first > 60000 {
			continue
		}
		free := true
		for n := first + 1; n < first+4; n++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n))
			if err != nil {
				free = false
				break
			}
			_ = l.Close()
		}
		if free {
			return first
		}
	}
	t.Fatal("no four free ports in a row")
	return 0
}

// The cluster demo is what it says: first run, login and a call through its load balancer, and nothing is left of it afterwards.
func TestClusterDemo(t *testing.T) {
	for _, program := range []string{"redis-server", "redis-cli", "haproxy"} {
		testkit.Tool(t, program)
	}
	port := demoPort(t)
	temp := t.TempDir()
	cmd := exec.Command(filepath.Join(testkit.Root(t), "packaging/cluster/demo"))
	cmd.Env = append(os.Environ(), fmt.Sprintf("PORT=%d", port), "TMPDIR="+temp)
	demo := testkit.Start(t, "demo", cmd)
	setup := demo.Says(3*time.Minute, `(http://localhost:\d+)(/setup\?token=\S+)`)
	front := setup[1]
	if front != fmt.Sprintf("http://localhost:%d", port) {
		t.Errorf("the set-up link is for %s, the load balancer has port %d", front, port)
	}
	b := testkit.NewBrowser(t)
	ada := &caller{Page: b.Page(t, "ada"), t: t, user: "ada"}
	ada.Open(setup[0])
	ada.fill("#username", "ada")
	ada.fill("#password", password)
	ada.fill("#again", password+"\r")
	ada.Until(20*time.Second, "has left the set-up page", "location.pathname !== '/setup' && document.readyState === 'complete'")
	ada.Open(front + "/call/tea")
	again := logIn(t, b.Page(t, "again"), front, "ada", "/call/tea")
	ada.join(false)
	again.join(false)
	for _, c := range []*caller{ada, again} {
		c.connected(1, 30*time.Second, func(link) error { return nil })
	}
	demo.Terminate()
	demo.Wait(30 * time.Second)
	testkit.Eventually(t, 10*time.Second, "nothing is left", func() error {
		if response, err := http.Get(front + "/healthz"); err == nil {
			_ = response.Body.Close()
			return fmt.Errorf("%s still answers", front)
		}
		left, err := filepath.Glob(filepath.Join(temp, "*"))
		if err != nil || len(left) > 0 {
			return fmt.Errorf("left: %v (%w)", left, err)
		}
		return nil
	})
}
