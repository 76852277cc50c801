package e2e

import (
	"io"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// probing is a callbox doctor --phone at work.
type probing struct {
	*testkit.Process
	link string
}

func doctorPhone(t *testing.T, s *testkit.Server) *probing {
	t.Helper()
	p := &probing{Process: testkit.Start(t, "doctor", exec.Command(testkit.Binary(t), "doctor", "--phone", "--data", s.Data))}
	p.link = p.Says(30*time.Second, `(https://\S+/doctor/\S+)`)[1]
	return p
}

// verdicts are those that the terminal shows, in their order.
func (p *probing) verdicts() string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^(HTTPS|WebSocket|STUN|relay over \w+) +(ok|warn|fail|skipped) `).FindAllStringSubmatch(p.Output(), -1) {
		out = append(out, m[1]+": "+m[2])
	}
	return strings.Join(out, ", ")
}

// TestPhoneReachesTheServer: a real browser opens the link, and the terminal shows each verdict. That it comes from this
// machine is said as well.
func TestPhoneReachesTheServer(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Args: []string{"--turns", "on"}})
	p := doctorPhone(t, s)
	page := testkit.NewBrowser(t, testkit.IgnoreCertificates()).Page(t, "phone")
	page.Open(p.link)
	page.Until(90*time.Second, "all ways were tried", `document.getElementById("outcome").textContent.includes("Every way is open.")`)
	if code := p.Wait(30 * time.Second); code != 0 {
		t.Errorf("status %d", code)
	}
	if got, want := p.verdicts(), "HTTPS: warn, WebSocket: ok, STUN: ok, relay over UDP: ok, relay over TCP: ok, relay over TLS: ok"; got != want {
		t.Errorf("%s\nsays %s, want %s", p.Output(), got, want)
	}
	// The link is good for one probe.
	page.Open(p.link)
	page.Until(10*time.Second, "the link has ended", `!document.getElementById("steps") && document.body.textContent.includes("This link has ended")`)
}

// TestServerExaminesItself at its start, in the background, and says how it went to those who may know.
func TestServerExaminesItself(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Doctor: "12h"})
	s.Says(60*time.Second, `"msg":"examined"`)
	for _, tc := range []struct{ path, says string }{
		{"/readyz", `"doctor":{"verdict":"`},
		{"/metrics", `callbox_doctor_check{check="relay over TLS"} 0`},
		{"/metrics", `callbox_doctor_last_run_timestamp_seconds 1.`},
	} {
		response, err := s.Client().Get(s.MetricsURL(tc.path))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || !strings.Contains(string(text), tc.says) {
			t.Errorf("%s lacks %s (%v):\n%s", tc.path, tc.says, err, text)
		}
	}
}
