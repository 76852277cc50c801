package relay

import (
	"net/netip"
	"testing"

	"github.com/pion/stun/v2"
	"golang.org/x/sys/unix"
)

// TestOutOfFiles takes every file descriptor away for a while: the client is told, and nothing ends.
func TestOutOfFiles(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		w.learn()
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		low := limit
		low.Cur = 3 // those open stay open
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		answer := w.do(stun.MethodAllocate, transportUDP)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		w.code(answer, 508)
		if got := s.Stats().QuotaRefusals["ports"]; got != 1 {
			t.Fatalf("%d refusals counted", got)
		}
		if a := w.allocate(); a.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Fatal(a)
		}
	})
}
