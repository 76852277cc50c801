package app

import (
	"context"
	"sync"
	"time"

	"callbox/auth"
	"callbox/bus"
	"callbox/internal/certs"
	"callbox/relay"
	"callbox/signal"
)

// events hands on what the bus tells. Its methods do not block.
type events struct{ a *App }

var _ bus.Handler = events{}

func (e events) Message(from bus.NodeID, data []byte)       { e.a.hub.Message(from, data) }
func (e events) Lost(to bus.NodeID, data []byte, why error) { e.a.hub.Lost(to, data, why) }
func (e events) NodesChanged(nodes []bus.NodeInfo)          { e.a.hub.NodesChanged(nodes) }

func (e events) Changed(bucket, key string) {
	e.a.changes.add(bucket, key)
	if bucket == certs.BucketCertificates && e.a.certs.acme != nil {
		e.a.certs.acme.Changed()
	}
}

func (e events) Link(up bool) {
	e.a.linkUp.Store(up) // the bus has logged it
	if up {
		e.a.changes.addAll() // news may have been missed
		if e.a.certs.acme != nil {
			e.a.certs.acme.Changed()
		}
	}
	e.a.hub.Link(up)
}

const (
	// maxChanges is how many records are read anew one by one; past it everything is.
	maxChanges = 256
	// changeTimeout bounds reading one record or bucket anew.
	changeTimeout = 5 * time.Second
	// changeRetry is the pause before a failed reading is tried again.
	changeRetry = time.Second
)

// changes reads anew what other nodes have changed, and ends what a change has revoked. Its goroutine is run.
type changes struct {
	a    *App
	wake chan struct{} // of one element

	mu      sync.Mutex // guards what follows
	pending map[change]struct{}
	all     bool
}

type change struct{ bucket, key string }

func newChanges(a *App) *changes {
	return &changes{a: a, wake: make(chan struct{}, 1), pending: make(map[change]struct{})}
}

func (c *changes) add(bucket, key string) {
	c.mu.Lock()
	if len(c.pending) < maxChanges {
		c.pending[change{bucket, key}] = struct{}{}
	} else {
		c.all = true
	}
	c.mu.Unlock()
	c.signal()
}

func (c *changes) addAll() {
	c.mu.Lock()
	c.all = true
	c.mu.Unlock()
	c.signal()
}

func (c *changes) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		all, pending := c.all, c.pending
		c.all, c.pending = false, make(map[change]struct{})
		c.mu.Unlock()
		if !c.read(ctx, all, pending) && ctx.Err() == nil {
			// What could not be read may be a revocation: it is not given up.
			retry := time.NewTimer(changeRetry)
			select {
			case <-ctx.Done():
				retry.Stop()
				return
			case <-retry.C:
			}
			c.addAll()
		}
	}
}

// read brings the memories of auth up to date and says whether it could.
func (c *changes) read(ctx context.Context, all bool, pending map[change]struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	w, ok, matters := c.a.web, true, all
	try := func(err error) {
		if err != nil {
			ok = false
			c.a.log.Warn("changed records not read", logError, err)
		}
	}
	if all {
		try(w.users.Reload(ctx))
		try(w.sessions.Reload(ctx))
		try(w.externals.Reload(ctx))
		try(w.keys.Reload(ctx))
		try(w.throttle.Reload(ctx))
		try(w.invites.Reload(ctx))
	} else {
		for change := range pending {
			switch change.bucket {
			case auth.BucketUsers:
				try(w.users.Changed(ctx, change.key))
				matters = true
			case auth.BucketExternals:
				try(w.externals.Changed(ctx, change.key))
				matters = true
			case auth.BucketRevocations:
				try(w.sessions.Changed(ctx, change.key))
				matters = true
			case auth.BucketKeys:
				try(w.keys.Changed(ctx, change.key))
				matters = true
			case auth.BucketInvites:
				try(w.invites.Changed(ctx, change.key))
				matters = true
			case auth.BucketThrottle:
				try(w.throttle.Changed(ctx, change.key))
			}
		}
	}
	if matters {
		c.a.reap()
	}
	return ok
}

// reap ends every connection and relay whose session, user, key or invite is no longer good.
func (a *App) reap() {
	now := time.Now()
	shared := make(map[string]bool) // sessions that are not a user's
	for _, k := range a.web.keys.List() {
		shared[auth.KeySession(k.ID)] = true
	}
	for _, i := range a.web.invites.List(now) {
		shared[auth.InviteSession(i.ID)] = true
	}
	a.hub.Revoke(func(id signal.Identity) bool {
		if id.Login {
			if _, ok := a.web.user(id.User); !ok {
				return true
			}
		} else if !shared[id.Session] {
			return true
		}
		return a.web.sessions.Revoked(ownerOf(id), id.Session, now)
	})
	a.relay.Revoke(func(o relay.Owner) bool {
		return a.web.sessions.RevokedHandle(o.User, o.Session, now)
	})
}
