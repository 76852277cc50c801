package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Options say who the client is. The zero value is nobody: a Token, a TokenSource or an HTTPClient with a cookie is needed.
type Options struct {
	// Token is a room token. TokenSource, if given, is asked for one before every connection instead; with it an expired token
	// costs a session, but not the client.
	Token       string
	TokenSource func(ctx context.Context) (string, error)

	// HTTPClient makes the handshake; its Jar is where the cookie of a logged-in user comes from. Nil: one of the client's own.
	HTTPClient *http.Client
	Header     http.Header // further headers of the handshake

	// Name is what others see; empty: as in the token, else the user.
	Name string
	// Others are further addresses of the same cluster, tried in turn with the first one where no load balancer does that.
	Others []string

	// RenewICE keeps ICE servers fresh: for the room joined last they are asked for when it is joined, when its relay changes, and
	// at half their life. They come as Renewed.
	RenewICE bool

	Backoff    time.Duration // before the first new try, doubled with each; default 0.5 s
	MaxBackoff time.Duration // default 10 s
	// MaxMessage bounds a message of the server; default 4 MiB. MaxQueue bounds, in bytes, the events that wait for Next: past it
	// the client stays away from the server until half of them are taken; default 8 MiB.
	MaxMessage int
	MaxQueue   int

	Log *slog.Logger // nil: nothing is logged
}

const (
	subprotocol    = "callbox.v1"
	dialTimeout    = 15 * time.Second
	writeTimeout   = 15 * time.Second
	goodbyeTimeout = 3 * time.Second
	maxOutbox      = 512     // messages that the server has not confirmed
	maxOutboxBytes = 4 << 20 // their bytes
	maxToken       = 128     // bytes of a resume token
)

// Client is one session. Its methods may be called from several goroutines at once; Next by one at a time.
type Client struct {
	o    Options
	urls []string
	http *http.Client
	log  *slog.Logger

	ctx    context.Context // ends with Close; of everything that waits for the network
	cancel context.CancelFunc
	done   chan struct{} // closed when run has ended
	wake   chan struct{} // of one element: there is something to write or to do

	attempts int // owned by run, before that by Dial
	failures int // owned by run: connections in a row that did not last

	mu      sync.Mutex // guards everything below; never held while waiting
	closing bool
	err     error         // why it is over; set once
	over    chan struct{} // closed with err
	sever   bool          // Reconnect was called
	online  bool          // there is a welcomed connection
	session               // what begins anew with every session
	queue   queue
	space   chan struct{} // closed and replaced when the outbox has room again
	rooms   map[string]*membership
	last    string // room joined last
	limits  Limits
	who     Connected // as of the last welcome
	nextID  uint64
	pending map[string]answer // by request id

	goAt  time.Time // after goaway: when to go elsewhere
	iceAt time.Time // when to ask for ICE servers again
}

// session is the state that client and server number alike. Guarded by Client.mu.
type session struct {
	resume  string    // secret
	handled uint64    // highest number that came in
	acked   uint64    // highest number acknowledged
	ackAt   time.Time // when to acknowledge; zero: nothing to
	taken   int       // bytes handled since the last acknowledgement
	sent    uint64    // highest number given out
	outbox  []outgoing
	next    int // first of outbox that this connection has not carried
	bytes   int // in outbox
}

// Dial connects to a server and begins a session. The address is the server's, as https://calls.example.org or
// ws://127.0.0.1:8080/ws; each of Options.Others is tried once too. ctx bounds Dial alone.
//
// Errors: ErrUnauthorized, ErrRefused, ErrUnavailable, ErrServer, or that of the network.
func Dial(ctx context.Context, address string, o Options) (*Client, error) {
	c := &Client{
		o: o, http: o.HTTPClient, log: o.Log,
		done: make(chan struct{}), wake: make(chan struct{}, 1), over: make(chan struct{}), space: make(chan struct{}),
		rooms: make(map[string]*membership), pending: make(map[string]answer),
	}
	for _, a := range append([]string{address}, o.Others...) {
		u, err := endpoint(a)
		if err != nil {
			return nil, err
		}
		c.urls = append(c.urls, u)
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.http == nil {
		// No connection is kept that somebody would have to close.
		c.http = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	}
	c.o.Backoff = def(o.Backoff, 500*time.Millisecond)
	c.o.MaxBackoff = def(o.MaxBackoff, 10*time.Second)
	c.o.MaxMessage = def(o.MaxMessage, 4<<20)
	c.o.MaxQueue = def(o.MaxQueue, 8<<20)
	c.queue.init()

	var errs []error
	for range c.urls {
		conn, err := c.connect(ctx)
		if err == nil {
			c.ctx, c.cancel = context.WithCancel(context.Background())
			go c.run(conn)
			return c, nil
		}
		errs = append(errs, err)
		if c.final(err) != nil || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func def[T int | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// endpoint is the WebSocket URL of an address.
func endpoint(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("callbox client: address %q: write it as https://calls.example.org", address)
	}
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "ws"
	case "https", "wss":
		u.Scheme = "wss"
	default:
		return "", fmt.Errorf("callbox client: address %q: the scheme is http, https, ws or wss", address)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/ws"
	}
	return u.String(), nil
}

// origin is the server's own, as browsers write it (RFC 6454 section 6.2); a cookie needs it.
func origin(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	if u.Scheme == "wss" {
		return "https://" + strings.TrimSuffix(u.Host, ":443")
	}
	return "http://" + strings.TrimSuffix(u.Host, ":80")
}

// connect makes one connection and takes it to the welcome.
func (c *Client) connect(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	to := c.urls[c.attempts%len(c.urls)]
	c.attempts++
	token := c.o.Token
	if c.o.TokenSource != nil {
		var err error
		if token, err = c.o.TokenSource(ctx); err != nil {
			return nil, fmt.Errorf("callbox client: room token: %w", err)
		}
	}
	o := websocket.DialOptions{HTTPClient: c.http, HTTPHeader: c.o.Header.Clone(), Subprotocols: []string{subprotocol}}
	if token != "" {
		o.Subprotocols = append(o.Subprotocols, "token."+token)
	} else {
		if o.HTTPHeader == nil {
			o.HTTPHeader = make(http.Header)
		}
		if o.HTTPHeader.Get("Origin") == "" {
			o.HTTPHeader.Set("Origin", origin(to))
		}
	}
	conn, resp, err := websocket.Dial(ctx, to, &o)
	if err != nil {
		return nil, handshakeError(resp, err)
	}
	if conn.Subprotocol() != subprotocol {
		_ = conn.CloseNow()
		return nil, fmt.Errorf("%w: it has not chosen the subprotocol %s", ErrRefused, subprotocol)
	}
	conn.SetReadLimit(int64(c.o.MaxMessage))
	if err := c.greet(ctx, conn); err != nil {
		_ = conn.CloseNow()
		return nil, err
	}
	return conn, nil
}

// Close says goodbye, so that others see this peer leave at once, and waits until everything has ended. What was sent before
// reaches the server if there is a connection. Events that have come may still be taken with Next, which then gives ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.poke()
	// A server that does not answer the goodbye holds nobody up.
	t := time.AfterFunc(2*goodbyeTimeout, c.cancel)
	defer t.Stop()
	<-c.done
	return nil
}

// Reconnect drops the connection and resumes on a new one at once: for the moment when the network is known to have changed.
func (c *Client) Reconnect() {
	c.mu.Lock()
	c.sever = true
	c.mu.Unlock()
	c.poke()
}

// Self is who this client is, as of the last connection.
func (c *Client) Self() Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Peer{ID: c.who.Peer, User: c.who.User, Name: c.who.Name}
}

// Err is why the client has ended; nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// poke wakes the writer.
func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
