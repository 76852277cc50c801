// Package webhook tells other programs what happens, by HTTP requests that are signed: docs/webhooks.md says how they look. It
// knows nothing of rooms and peers: an event is a body with a place in an order.
//
// Whoever hands over an event never waits. Events wait in a queue of fixed size, are sent in the order of their keys, and are
// tried again with backoff; what cannot be delivered is dropped and counted.
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash/maphash"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Event is one thing to tell.
type Event struct {
	Key  string                 // events of one key arrive in order
	Rank uint64                 // their order; of two equal ones the first handed over comes first
	Body func(id string) []byte // makes the JSON, with an id that is the same for every receiver and every try
	id   string
	at   time.Time
	body []byte
}

// Config is what a Sender needs.
type Config struct {
	URLs []string // http or https; each gets every event
	// Sign gives the key that signs now. False: there is none, and events are dropped.
	Sign func() (id, secret string, ok bool)
	Log  *slog.Logger // nil: nothing is logged

	Queue   int           // events that wait for one receiver; default 10,000
	Timeout time.Duration // one request; default 10 s
	Linger  time.Duration // how long an event waits for one that belongs before it; default 100 ms
	Backoff time.Duration // before the second try, doubled with each up to a minute; default 1 s
	Expire  time.Duration // after which an event is given up; default 1 h
}

const (
	lanes      = 8 // requests under way to one receiver; one key has always the same lane
	maxBackoff = time.Minute
	maxAnswer  = 64 << 10 // bytes of an answer that are read, for the sake of the connection
	userAgent  = "callbox-webhook/1"
)

// Headers of a request.
const (
	HeaderID        = "Callbox-Event"     // id of the event
	HeaderKey       = "Callbox-Key"       // id of the API key that signs
	HeaderTimestamp = "Callbox-Timestamp" // seconds since 1970 when this try was made
	HeaderSignature = "Callbox-Signature" // v1=hex of HMAC-SHA256(secret, timestamp + "." + body)
)

// Reasons of drops.
const (
	dropFull    = "full"    // the receiver's queue is full
	dropExpired = "expired" // tried for too long
	dropRefused = "refused" // the receiver answered that it will not have it
	dropNoKey   = "no-key"  // there is no API key to sign with
	dropStopped = "stopped" // this process ended
)

// Stats are counters since New, and what waits.
type Stats struct {
	Sent    uint64
	Retried uint64
	Dropped map[string]uint64 // by reason
	Queued  int
}

// Sender delivers events. Its goroutines are started by New and waited for by Close.
type Sender struct {
	cfg       Config
	http      *http.Client
	transport *http.Transport
	receivers []*receiver
	seed      maphash.Seed

	ctx    context.Context // of requests
	cancel context.CancelFunc
	ending chan struct{} // closed by Close: what is left is tried once
	once   sync.Once
	wg     sync.WaitGroup

	sent, retried atomic.Uint64
	mu            sync.Mutex
	dropped       map[string]uint64 // guarded by mu
}

// receiver is one URL.
type receiver struct {
	url     string
	shown   string // without what may be secret
	queued  atomic.Int64
	failing atomic.Bool // nothing was delivered since the last failure
	lanes   [lanes]lane
}

// New starts a sender.
func New(cfg Config) *Sender {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.Timeout, 10*time.Second)
	def(&cfg.Linger, 100*time.Millisecond)
	def(&cfg.Backoff, time.Second)
	def(&cfg.Expire, time.Hour)
	if cfg.Queue <= 0 {
		cfg.Queue = 10_000
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sender{
		cfg: cfg, seed: maphash.MakeSeed(), ending: make(chan struct{}), dropped: make(map[string]uint64),
		transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: cfg.Timeout}).DialContext,
			TLSHandshakeTimeout:    cfg.Timeout,
			MaxIdleConnsPerHost:    lanes,
			MaxResponseHeaderBytes: 32 << 10,
			IdleConnTimeout:        90 * time.Second,
		},
	}
	s.http = &http.Client{
		Transport: s.transport,
		// Where events go is the operator's to say, not the receiver's.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, url := range cfg.URLs {
		r := &receiver{url: url, shown: shown(url)}
		for i := range r.lanes {
			l := &r.lanes[i]
			l.wake = make(chan struct{}, 1)
			s.wg.Go(func() { s.run(r, l) })
		}
		s.receivers = append(s.receivers, r)
	}
	return s
}

// shown is a URL for the log: a path or a query may be what keeps strangers out.
func shown(url string) string {
	scheme, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, "?")
	return scheme + "://" + host
}

// Send hands an event over. It never waits.
func (s *Sender) Send(e Event) {
	e.id, e.at = strings.ToLower(rand.Text()), time.Now()
	e.body = e.Body(e.id)
	n := maphash.String(s.seed, e.Key) % lanes
	for _, r := range s.receivers {
		if r.queued.Add(1) > int64(s.cfg.Queue) {
			r.queued.Add(-1)
			s.drop(r, dropFull)
			continue
		}
		r.lanes[n].add(e)
	}
}

func (s *Sender) drop(r *receiver, reason string) {
	s.mu.Lock()
	s.dropped[reason]++
	first := s.dropped[reason] == 1
	s.mu.Unlock()
	if first { // the counter tells of the others
		s.cfg.Log.Warn("webhook events are dropped", logReceiver, r.shown, logReason, reason)
	}
}

// Keys of log attributes.
const (
	logReceiver = "receiver"
	logReason   = "reason"
	logError    = "error"
)

// Close tries once what is left, until ctx ends, and waits for the goroutines. Send must not be called any more.
func (s *Sender) Close(ctx context.Context) {
	s.once.Do(func() { close(s.ending) })
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	s.wg.Wait()
	s.cancel()
	s.transport.CloseIdleConnections()
}

// Stats returns the present figures.
func (s *Sender) Stats() Stats {
	out := Stats{Sent: s.sent.Load(), Retried: s.retried.Load()}
	s.mu.Lock()
	out.Dropped = maps.Clone(s.dropped)
	s.mu.Unlock()
	for _, r := range s.receivers {
		out.Queued += int(r.queued.Load())
	}
	return out
}

// Sign is the signature of a body: what receivers compute too.
func Sign(secret string, at time.Time, body []byte) (timestamp, signature string) {
	timestamp = strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return timestamp, "v1=" + hex.EncodeToString(mac.Sum(nil))
}
