package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"callbox/auth"
	"callbox/bus"
	"callbox/internal/config"
	"callbox/internal/datadir"
	"callbox/internal/nat"
	"callbox/internal/webhook"
	"callbox/relay"
	"callbox/signal"
)

const (
	// goodbye bounds each step of stopping that waits for clients that may never answer.
	goodbye = 5 * time.Second
	// announceEvery is how often the other nodes are told of this one's load.
	announceEvery = time.Second
)

// Options are what a process gives its App besides the configuration.
type Options struct {
	// Stdout gets the start page. Nil: what it says is logged instead.
	Stdout io.Writer
	// TerminalSize is that of the terminal behind Stdout, in columns and lines; nil where it is none. It decides whether a
	// QR code can be seen whole.
	TerminalSize func() (columns, lines int)
	Log          *slog.Logger // nil: none
	// LogLevel is the level of Log where that can change; nil: it cannot.
	LogLevel *slog.LevelVar
	Version  string
	// Reload reads the configuration again from where it came from; nil: there is nothing to read.
	Reload func() (config.Config, error)
	// Hangup makes the server reload at each signal; nil: nothing does.
	Hangup <-chan os.Signal
	// Supervisor is told of start, reload and end.
	Supervisor Supervisor
	// Handed are the sockets of the one port, where a supervisor has bound them; New closes them where it fails.
	Handed Handed
	// OpenBus replaces the bus that the configuration names; for tests that put several nodes into one process.
	OpenBus func(ctx context.Context, store *bus.Store) (bus.Bus, error)
	// Patient starts a server that is only there to be examined: it says nothing, makes no set-up link, and tells load
	// balancers and other nodes to send nobody.
	Patient bool
	// PatientData is the data directory to examine where the server has another for the time of the examination.
	PatientData string
	// PatientDomains are --domain of such a server, which orders no certificate: it would be thrown away with the directory.
	PatientDomains []string
	// Accepted sees every TCP connection to the one port; for tests that break them. Nil: nobody does.
	Accepted func(net.Conn)
}

// App is one running callbox. New opens everything, Run serves and closes everything: an App that was made must be run,
// if only with a context that has ended.
type App struct {
	cfg  config.Config // as started; what can change is in live
	opts Options
	log  *slog.Logger

	dir     *datadir.Dir
	secrets datadir.Secrets
	store   *bus.Store
	bus     bus.Bus
	certs   *certificates
	hub     *signal.Hub
	hooks   *webhook.Sender // nil: nobody is told
	relay   *relay.Server
	web     *web
	changes *changes
	watcher *nat.Watcher // nil: nobody comes from outside
	opened  bool         // owned by the watcher: the router forwards the one port
	doctor  *practice
	phones  *phones
	ending  chan struct{} // closed when the stop begins

	port     *port
	extra    []*port // --turn-listen and redirect
	redirect *port   // --http-listen; nil: none
	turns    []turnPort
	metrics  net.Listener // --metrics-listen; nil: none
	control  net.Listener

	addr      netip.AddrPort
	live      atomic.Pointer[live]
	reloading sync.Mutex // held while live is computed anew
	draining  atomic.Bool
	linkUp    atomic.Bool
	setup     string // token of the set-up link, "" where there are users
}

// New opens the data directory, the bus and every socket; the context's end ends the waiting in it. What it opened is closed
// again where a later step fails.
func New(ctx context.Context, cfg config.Config, opts Options) (*App, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	a := &App{cfg: cfg, opts: opts, log: opts.Log}
	a.linkUp.Store(true)
	a.draining.Store(opts.Patient)
	a.doctor, a.phones, a.ending = newPractice(a), &phones{a: a}, make(chan struct{})
	var open closers
	open.add(func() error { _ = opts.Handed.close(); return nil }) // closed already where their owners were opened
	if err := a.open(ctx, &open); err != nil {
		return nil, errors.Join(err, open.close())
	}
	return a, nil
}

// closers undo the steps of open, the last first.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) close() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	return errors.Join(errs...)
}

func (a *App) open(ctx context.Context, undo *closers) (err error) {
	if a.dir, err = datadir.Open(a.cfg.Data); err != nil {
		return err
	}
	undo.add(a.dir.Close)
	if err := datadir.CheckOwner(a.dir.Path()); err != nil {
		a.log.Warn("the data directory is another user's; files that this server makes there are closed to that one", logError, err)
	}
	if a.secrets, err = a.dir.Secrets(SecretOptions(a.cfg)); err != nil {
		return err
	}
	if a.store, err = bus.OpenStore(a.dir.Path()); err != nil {
		return a.dir.Rights(err)
	}
	if a.bus, err = a.openBus(ctx, a.store); err != nil {
		return err
	}
	undo.add(a.bus.Close)
	if err = a.openAuth(ctx); err != nil {
		return err
	}
	a.watcher = newWatcher(a)
	l, err := a.newLive(a.cfg, a.secrets.TURN, hostAddrs())
	if err != nil {
		return err
	}
	a.live.Store(l)
	if a.certs, err = openCertificates(a.cfg, a.dir.Path(), a.log); err != nil {
		return a.dir.Rights(err)
	}
	if err = a.openSockets(undo); err != nil {
		return err
	}
	if err = a.openACME(ctx); err != nil {
		return err
	}
	a.openHooks()
	undo.add(a.closeHooks)
	a.hub = signal.New(signal.Config{
		Bus:   a.bus,
		Log:   a.log,
		Watch: a.watchRooms(),
		Limits: signal.Limits{
			MessageRate: a.cfg.MessageRate, MessageBytes: int(a.cfg.MessageBytes), PeersPerRoom: a.cfg.MaxPeers,
			ConnectionsPerUser: a.cfg.ConnectionsPerUser,
		},
	})
	undo.add(a.hub.Close)
	a.changes = newChanges(a)
	a.wireWeb()
	if a.web.users.Count() == 0 && !a.opts.Patient {
		if a.setup, err = a.web.setup.Issue(ctx, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// Addr is the address of the one port, as bound.
func (a *App) Addr() netip.AddrPort { return a.addr }

// Run serves until the context ends, then stops everything in order: no new clients, the old ones sent away, relays left
// alone for as long as --drain-timeout says, sockets, bus. It returns nil where it stopped because it was asked to.
func (a *App) Run(ctx context.Context) error {
	if err := a.bus.Start(events{a}); err != nil {
		return errors.Join(fmt.Errorf("bus: %w", err), a.closeAll())
	}
	// The group's context ends with ctx or with the first part that fails; everything else is stopped from one place.
	g, ended := errgroup.WithContext(ctx)
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()

	server := a.web.server(a.web.handler())
	servers := []*http.Server{server, a.controlServer()}
	g.Go(a.port.run)
	g.Go(serving(server, a.port.http()))
	g.Go(serving(servers[1], a.control))
	for _, p := range a.extra {
		g.Go(p.run)
	}
	if a.metrics != nil {
		m := a.web.server(a.web.metricsHandler(a.metrics.Addr()))
		servers = append(servers, m)
		g.Go(serving(m, a.metrics))
	}
	if a.redirect != nil {
		r := a.web.server(a.web.redirectHandler(a.addr.Port()))
		servers = append(servers, r)
		g.Go(serving(r, a.redirect.http()))
	}
	if a.certs.acme != nil {
		g.Go(func() error { a.certs.acme.Run(background); return nil })
	}
	g.Go(func() error { a.changes.run(background); return nil })
	g.Go(func() error { a.announce(background); return nil })
	g.Go(func() error { trim(background); return nil })
	g.Go(func() error { a.findOpenID(background); return nil })
	g.Go(func() error { a.followHangups(background); return nil })
	g.Go(func() error { a.watch(background); return nil })
	if !a.opts.Patient {
		g.Go(func() error { a.renewSetup(background, auth.SetupTTL, a.greetAgain); return nil })
		g.Go(func() error { a.doctor.rounds(background, a.cfg.DoctorEvery); return nil })
	}
	g.Go(func() error { a.watchHost(background, lookEvery, hostAddrs); return nil })
	if a.watcher != nil {
		g.Go(func() error { a.watcher.Run(background); return nil })
	}
	g.Go(func() error {
		<-ended.Done()
		a.log.Info("stopping")
		close(a.ending)
		a.opts.Supervisor.tell(stateStopping)
		err := a.stop(servers)
		stopBackground()
		return err
	})
	if !a.opts.Patient {
		a.greet()
	}
	a.opts.Supervisor.tell(stateReady)
	return errors.Join(g.Wait(), a.closeAll())
}

// serving runs a server until it is shut down.
func serving(s *http.Server, l net.Listener) func() error {
	return func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("HTTP server on %s: %w", l.Addr(), err)
		}
		return nil
	}
}

// closeAll closes what Run's goroutines have used, after they have ended.
func (a *App) closeAll() error {
	errs := []error{a.hub.Close(), a.closeHooks(), a.relay.Close()}
	a.port.close()
	for _, p := range a.extra {
		p.close()
	}
	for _, l := range []net.Listener{a.metrics, a.control} {
		if l != nil {
			_ = l.Close() // already closed by its server in most cases
		}
	}
	return errors.Join(append(errs, a.bus.Close(), a.dir.Close())...)
}
