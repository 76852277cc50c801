package nat

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"callbox/internal/router"
)

const (
	// lookEvery is the usual pause between looks, give or take a fifth, so that servers of many users are not asked at once.
	lookEvery = 5 * time.Minute
	// firstRetry is the pause after a first look that found nothing, and after the router has gone; it doubles up to lookEvery.
	firstRetry = 20 * time.Second
	// wishEvery is how often the caller is asked which ports it wants: until there is an administrator it wants none.
	wishEvery = time.Second
	// lease is how long the router is to remember: what a crash leaves behind ends with it.
	lease = time.Hour
	// forwardTimeout bounds all calls of one round at the router.
	forwardTimeout = 20 * time.Second
	// goodbye bounds the removal of the mappings at the end.
	goodbye = 4 * time.Second
)

// Keys of log records.
const (
	logPublic  = "public"
	logMapping = "mapping"
	logRouter  = "router"
	logPorts   = "ports"
	logWhy     = "why"
)

// Wish is what the router is to forward.
type Wish struct {
	// Need are the ports without which nobody outside reaches this host.
	Need []router.Port
	// Extra are further ones, as many as the router takes.
	Extra []router.Port
}

// WatcherConfig is what a Watcher needs.
type WatcherConfig struct {
	// Probe says whom to ask; it is called before each look, so that a change of configuration counts from the next.
	Probe func() Config
	// Wish says what the router is to forward now; it is called every second. Nil: nothing ever.
	Wish func() Wish
	// Changed is told of each report that says something new, from Run's goroutine. It must not block for long.
	Changed func(Report)
	Log     *slog.Logger // nil: none

	every time.Duration // for tests: 0: lookEvery
}

// Watcher looks every few minutes, and at once where it is told that the network has changed.
type Watcher struct {
	cfg   WatcherConfig
	again chan struct{} // of one element
	state atomic.Pointer[Report]

	// Owned by Run.
	router Forwarder        // the one that answered last, or nil
	held   []router.Mapping // in the order of the wish: at the end the most important go first
	host   []netip.Addr     // this host's addresses at the last look
	told   string           // the last report that was told, in short
}

// NewWatcher makes a Watcher. It does nothing until Run.
func NewWatcher(cfg WatcherConfig) *Watcher {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.every == 0 {
		cfg.every = lookEvery
	}
	w := &Watcher{cfg: cfg, again: make(chan struct{}, 1)}
	w.state.Store(&Report{IPv4: Family{Mapping: Unknown}, IPv6: Family{Mapping: Unknown}})
	return w
}

// State is the last report; its Checked is zero before the first.
func (w *Watcher) State() Report { return *w.state.Load() }

// Look has the watcher look again now: the network or the configuration has changed. It does not wait.
func (w *Watcher) Look() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// Run looks until the context ends; then the router is told to forward nothing any more, which takes 4 seconds at most.
func (w *Watcher) Run(ctx context.Context) {
	defer w.leave(ctx)
	wishes := time.NewTicker(wishEvery)
	defer wishes.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	pause := min(firstRetry, w.cfg.every)
	wish := w.wish()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-w.again:
		case <-wishes.C:
			if now := w.wish(); !now.equal(wish) {
				wish = now
				report := w.State()
				w.forward(ctx, &report, wish, false)
				w.tell(ctx, report)
			}
			continue
		}
		wish = w.wish()
		had := w.State().Router.Found
		report := w.look(ctx, wish)
		w.tell(ctx, report)
		switch {
		case had && !report.Router.Found:
			pause = min(firstRetry, w.cfg.every) // it may be starting anew
		case report.Err == "" && report.Router.Found:
			pause = w.cfg.every
		}
		next.Reset(pause - pause/5 + rand.N(2*pause/5+1))
		pause = min(2*pause, w.cfg.every)
	}
}

func (w *Watcher) wish() Wish {
	if w.cfg.Wish == nil {
		return Wish{}
	}
	return w.cfg.Wish()
}

func (a Wish) equal(b Wish) bool {
	return slices.Equal(a.Need, b.Need) && slices.Equal(a.Extra, b.Extra)
}

// look asks everybody and brings the router's mappings up to date.
func (w *Watcher) look(ctx context.Context, wish Wish) Report {
	cfg := w.cfg.Probe()
	if cfg.Host == nil {
		cfg.Host = hostAddrs
	}
	host := cfg.Host()
	was, known := w.State(), w.router
	report, found := discover(ctx, cfg, known)
	if ctx.Err() != nil {
		return was // cut off, not failed
	}
	moved := !slices.Equal(host, w.host)
	w.host = host
	if !moved && (len(cfg.Servers) > 0 || cfg.Router != nil) {
		keep(&report, was)
	}
	if found != known || moved {
		w.held = nil // another router, or this host has another address there: it knows nothing of us
	}
	w.router = found
	w.forward(ctx, &report, wish, was.Router.WAN != report.Router.WAN)
	return report
}

// keep takes over what was known where nobody answered this time: a moment without network is no change of address.
func keep(r *Report, was Report) {
	for _, f := range []struct{ now, was *Family }{{&r.IPv4, &was.IPv4}, {&r.IPv6, &was.IPv6}} {
		if f.now.Public == f.was.Public && f.now.Mapping == Unknown {
			f.now.Mapping = f.was.Mapping // one of two servers was silent
		}
		silent := !slices.ContainsFunc(f.now.Answers, func(a Answer) bool { return a.Mapped.IsValid() })
		if !f.now.Public.IsValid() && f.was.Public.IsValid() && silent {
			f.now.Public, f.now.Source, f.now.Mapping = f.was.Public, f.was.Source, f.was.Mapping
			if f.now == &r.IPv4 && !r.CGNAT && !r.Router.Found {
				r.CGNAT, r.Why = was.CGNAT, was.Why
			}
			r.Err = ""
		}
	}
}

// forward brings what the router forwards in line with the wish. All mappings are made anew where the router may have
// forgotten them.
func (w *Watcher) forward(ctx context.Context, r *Report, wish Wish, anew bool) {
	if w.router == nil || r.IPv4.Mapping == None {
		wish = Wish{}
	}
	r.Router.Mappings, r.Router.Lease = nil, 0
	if w.router == nil {
		w.held = nil
		return
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	now := time.Now()
	if len(w.held) > 0 && !anew {
		anew = w.router.Lost(ctx, w.held[0].Port)
	}
	if anew {
		w.held = nil
	}
	w.drop(ctx, func(p router.Port) bool { return slices.Contains(wish.Need, p) || slices.Contains(wish.Extra, p) })
	if f := r.Router.Fault; f == FaultConflict || f == FaultRefused || f == FaultFull {
		r.Router.Fault, r.Router.Err = "", ""
	}
	whole := true
	for _, p := range wish.Need {
		if err := w.hold(ctx, p, now); err != nil {
			whole = false
			r.Router.fail(p, err)
		}
	}
	for _, p := range wish.Extra {
		if !whole {
			break
		}
		if err := w.hold(ctx, p, now); err != nil && !isConflict(err) {
			break // it takes no more; those it has taken will do
		}
	}
	if len(w.held) > 0 {
		r.Router.Mappings, r.Router.Lease = slices.Clone(w.held), lease
	}
}

// hold makes or renews one mapping when half of its time is over.
func (w *Watcher) hold(ctx context.Context, p router.Port, now time.Time) error {
	at := slices.IndexFunc(w.held, func(m router.Mapping) bool { return m.Port == p })
	if at >= 0 && (w.held[at].Until.IsZero() || w.held[at].Until.Sub(now) > lease/2) {
		return nil
	}
	m, err := w.router.Map(ctx, p, lease, now)
	switch {
	case err == nil && at >= 0:
		w.held[at] = m
	case err == nil:
		w.held = append(w.held, m)
	case at >= 0 && (isConflict(err) || !w.held[at].Until.After(now)):
		w.held = slices.Delete(w.held, at, at+1)
	}
	return err
}

// drop ends the mappings that are not kept.
func (w *Watcher) drop(ctx context.Context, kept func(router.Port) bool) {
	w.held = slices.DeleteFunc(w.held, func(m router.Mapping) bool {
		if kept(m.Port) {
			return false
		}
		if err := w.router.Unmap(ctx, m.Port); err != nil {
			w.cfg.Log.Debug("the router keeps a port until its lease ends", logPorts, m.Port.String(), logWhy, err)
		}
		return true
	})
}

// leave has the router forward nothing any more.
func (w *Watcher) leave(ctx context.Context) {
	if w.router == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	w.drop(ctx, func(router.Port) bool { return false })
}

// tell stores the report, and says it where it is news.
func (w *Watcher) tell(ctx context.Context, r Report) {
	w.state.Store(&r)
	short := r.short()
	if short == w.told || ctx.Err() != nil || r.Checked.IsZero() {
		return
	}
	w.told = short
	attributes := []any{logPublic, r.public(), logMapping, string(r.IPv4.Mapping), logRouter, r.Router.text(), logPorts, ports(r.Router.Mappings)}
	switch {
	case r.CGNAT:
		w.cfg.Log.Warn("nobody outside can reach this host by IPv4", append(attributes, logWhy, r.Why)...)
	case r.Router.Fault != "" && r.Router.Fault != FaultNone:
		w.cfg.Log.Warn("the router does not forward every port", append(attributes, logWhy, r.Router.Err)...)
	case r.Err != "":
		w.cfg.Log.Info("the public address is not known", append(attributes, logWhy, r.Err)...)
	default:
		w.cfg.Log.Info("the way to the Internet", attributes...)
	}
	if w.cfg.Changed != nil {
		w.cfg.Changed(r)
	}
}

// short is what of a report is news when it differs.
func (r Report) short() string {
	return fmt.Sprint(r.IPv4.short(), r.IPv6.short(), r.CGNAT, r.Err, r.Router.Kind, r.Router.WAN, r.Router.Fault, ports(r.Router.Mappings))
}

// short leaves out an address of the host's own: those of IPv6 change daily for privacy, and nothing hangs on them here.
func (f Family) short() string {
	if f.Mapping == None {
		return string(None)
	}
	return fmt.Sprint(f.Public, f.Mapping)
}

// public are the addresses of both families, whether the host's own or not.
func (r Report) public() string {
	var out []string
	for _, a := range []netip.Addr{r.IPv4.Public, r.IPv6.Public} {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return strings.Join(out, " ")
}

// Ports are those that are forwarded, in short: "8080/tcp 8080/udp 49152-49167/udp".
func (r Router) Ports() string { return ports(r.Mappings) }

func (r Router) text() string {
	if !r.Found {
		return "none"
	}
	return strings.TrimSpace(string(r.Kind) + " " + r.Name)
}

// ports writes "8080/tcp 8080/udp 49152-49167/udp".
func ports(list []router.Mapping) string {
	var out []string
	for i := 0; i < len(list); {
		end := i
		for end+1 < len(list) && list[end+1].Protocol == list[i].Protocol && list[end+1].Number == list[end].Number+1 {
			end++
		}
		if end > i {
			out = append(out, fmt.Sprintf("%d-%d/%s", list[i].Number, list[end].Number, list[i].Protocol))
		} else {
			out = append(out, list[i].Port.String())
		}
		i = end + 1
	}
	return strings.Join(out, " ")
}
