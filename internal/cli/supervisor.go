package cli

import (
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"callbox/internal/app"
)

// supervisor is the one that this process's environment names, and the sockets that it has bound. What it said is not passed
// on to other processes.
func supervisor() (app.Supervisor, []*os.File) {
	var s app.Supervisor
	if os.Getenv("NOTIFY_SOCKET") != "" {
		s.Notify = func(state string) {
			// Whoever does not listen has nothing to be told.
			_, _ = daemon.SdNotify(false, state)
		}
	}
	s.Watchdog, _ = daemon.SdWatchdogEnabled(true) // what does not parse is no watchdog
	return s, activation.Files(true)
}
