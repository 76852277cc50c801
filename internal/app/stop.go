package app

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// drainPoll is how often the relay is asked whether its last allocation has gone.
const drainPoll = 100 * time.Millisecond

// stop ends the serving parts in order. The bus and the relay's sockets outlive it, because hand-over needs them.
func (a *App) stop(servers []*http.Server) error {
	drain := a.live.Load().cfg.DrainTimeout
	a.draining.Store(true) // /readyz says so from now on
	for _, s := range servers {
		// Behind a balancer that passes TCP through, a connection that is kept leads here again and again.
		s.SetKeepAlivesEnabled(false)
	}
	// One deadline for clients and relays. Without a drain there is still a moment for the goodbye.
	ctx, cancel := context.WithTimeout(context.Background(), max(drain, announceEvery))
	defer cancel()

	a.relay.Drain()
	call, done := context.WithTimeout(ctx, announceEvery)
	if err := a.announceOnce(call); err != nil {
		a.log.Debug("other nodes do not hear of the end", logError, err)
	}
	done()
	// Clients go to another node, which takes their sessions over; alone, they come back when the server does.
	err := a.hub.Drain(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // who has not gone by now is closed
	}
	if drain > 0 {
		a.waitForRelay(ctx)
	}

	a.port.close()
	for _, p := range a.extra {
		p.close()
	}
	last, done := context.WithTimeout(context.Background(), goodbye)
	defer done()
	for _, s := range servers {
		if s.Shutdown(last) != nil {
			_ = s.Close()
		}
	}
	return err
}

// waitForRelay lets calls end by themselves until --drain-timeout.
func (a *App) waitForRelay(ctx context.Context) {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for a.allocations() > 0 {
		select {
		case <-ctx.Done():
			a.log.Info("relays still in use are closed", logAllocations, a.allocations())
			return
		case <-tick.C:
		}
	}
}
