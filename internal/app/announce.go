package app

import (
	"context"
	"net/netip"
	"time"

	"callbox/bus"
)

// announcedURLs are the TURN URLs of this node as other nodes give them to their clients.
func (a *App) announcedURLs() []string {
	host := a.addr.Addr()
	if host.IsUnspecified() {
		if addrs := preferred(a.live.Load().addrs); len(addrs) > 0 {
			host = addrs[0]
		} else {
			host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	o := a.offer(host.String())
	if len(o.URLs) > 0 {
		return o.URLs
	}
	var turns []string
	for _, u := range o.local() {
		if u[:4] == "turn" {
			turns = append(turns, u)
		}
	}
	return turns
}

// announce tells the other nodes of this one until the context ends.
func (a *App) announce(ctx context.Context) {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	failed := false
	for {
		call, cancel := context.WithTimeout(ctx, announceEvery)
		err := a.announceOnce(call)
		cancel()
		if err != nil && !failed && ctx.Err() == nil {
			a.log.Warn("other nodes do not hear of this one", logError, err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *App) announceOnce(ctx context.Context) error {
	return a.bus.Announce(ctx, bus.NodeInfo{
		TURN:        a.announcedURLs(),
		Allocations: a.allocations(),
		Connections: a.hub.Connections(),
		Draining:    a.draining.Load(),
	})
}

// allocations is the load of the relay.
func (a *App) allocations() (n int) {
	for _, open := range a.relay.Stats().Allocations {
		n += open
	}
	return n
}
