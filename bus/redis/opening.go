package redis

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// dialFunc is rueidis' way to make connections.
type dialFunc func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error)

func dialRedis(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	if t != nil {
		return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", address)
	}
	return d.DialContext(ctx, "tcp", address)
}

// opening lets the context of Open end what the client does meanwhile, of which the client knows nothing. A connection made
// then lives on when Open has succeeded.
type opening struct {
	ctx  context.Context
	next dialFunc

	mu    sync.Mutex
	over  bool
	stops []func() bool
}

// dial makes a connection that ends with the context, for as long as Open works.
func (o *opening) dial(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	o.mu.Lock()
	over := o.over
	o.mu.Unlock()
	if over {
		return o.next(ctx, address, d, t)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.ctx, cancel)()
	conn, err := o.next(ctx, address, d, t)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		o.stops = append(o.stops, context.AfterFunc(o.ctx, func() { _ = conn.Close() }))
	}
	return conn, nil
}

// done lets go of the connections.
func (o *opening) done() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	for _, stop := range o.stops {
		stop()
	}
	o.stops = nil
}
