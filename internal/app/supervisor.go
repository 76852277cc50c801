package app

import (
	"context"
	"time"

	"callbox/internal/control"
)

// What a supervisor is told, in the words of sd_notify(3).
const (
	stateReady     = "READY=1"
	stateStopping  = "STOPPING=1"
	stateReloading = "RELOADING=1"
	stateAlive     = "WATCHDOG=1"
)

// Supervisor is what started this process and wants to know how it is. The zero value wants to know nothing.
type Supervisor struct {
	// Notify tells it a state, in the words of sd_notify(3). It does not block.
	Notify func(state string)
	// Watchdog is how long it waits for a sign of life before it takes the process for hung; 0: for ever.
	Watchdog time.Duration
}

func (s Supervisor) tell(state string) {
	if s.Notify != nil {
		s.Notify(state)
	}
}

// watch gives signs of life, twice in the time that the supervisor waits, for as long as the server answers a question from
// outside: a process that is there and answers nobody is as good as dead.
func (a *App) watch(ctx context.Context) {
	if a.opts.Supervisor.Watchdog <= 0 {
		return
	}
	every := a.opts.Supervisor.Watchdog / 2
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		call, done := context.WithTimeout(ctx, every)
		_, err := control.NewClient(a.dir.Path()).Health(call)
		done()
		if err == nil {
			a.opts.Supervisor.tell(stateAlive)
		} else if ctx.Err() == nil {
			a.log.Error("this server does not answer itself", logError, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
