package testkit

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

var sentMessages = regexp.MustCompile(`tot_send_msgs=(\d+), tot_recv_msgs=(\d+)`)

// Uclient runs coturn's turnutils_uclient and fails the test unless it has sent something and lost nothing. credential gives the
// user name and password of a user.
func Uclient(t testing.TB, credential func(user string) (name, password string), arguments ...string) {
	t.Helper()
	// It draws channel numbers from 0x4000 to 0x7FFF (RFC 5766), of which RFC 8656 section 12 leaves those below 0x5000; the
	// rest is refused with 400. So it is asked again until it has drawn good ones. Tries that follow each other closely may
	// draw the same, and each leaves its allocations behind: there is time for many, and no user has enough of them to reach
	// the quota.
	tool := Tool(t, "turnutils_uclient")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var name, password string
	for try := 0; ; try++ {
		if try%40 == 0 {
			name, password = credential(fmt.Sprint("load", try))
		}
		out, err := exec.CommandContext(ctx, tool, append([]string{"-u", name, "-w", password}, arguments...)...).CombinedOutput()
		if strings.Contains(string(out), "channel bind: error 400") {
			continue
		}
		if err != nil {
			t.Fatalf("turnutils_uclient %s, try %d: %v\n%s", strings.Join(arguments, " "), try, err, out)
		}
		lostNothing(t, string(out))
		return
	}
}

func lostNothing(t testing.TB, out string) {
	t.Helper()
	all := sentMessages.FindAllStringSubmatch(out, -1)
	if len(all) == 0 {
		t.Fatalf("turnutils_uclient tells no figures:\n%s", out)
	}
	if end := all[len(all)-1]; end[1] == "0" || end[1] != end[2] || !strings.Contains(out, "Total lost packets 0 ") {
		t.Fatalf("sent %s, received %s:\n%s", end[1], end[2], out)
	}
}
