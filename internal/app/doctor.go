package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"callbox/auth"
	"callbox/bus/redis"
	"callbox/internal/certs"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/datadir"
	"callbox/internal/doctor"
	"callbox/internal/metrics"
	"callbox/internal/nat"
	"callbox/relay"
)

const (
	// examTime bounds one examination, whatever does not answer.
	examTime = 2 * time.Minute
	// doctorTTL is the life of a credential that a check uses.
	doctorTTL = 5 * time.Minute
	// firstOrder is how long an examination waits for a certificate that is being ordered.
	firstOrder = 30 * time.Second
	// doctorOwner begins the owners of the allocations that the checks make: no user has a colon in the name.
	doctorOwner = "callbox:doctor"
	// settled is how long what an examination looks at must have been as it is: changes seldom come alone.
	settled = 10 * time.Second
)

// practice examines the server that it is part of.
type practice struct {
	a    *App
	busy sync.Mutex // held during an examination: two would hear each other
	last atomic.Pointer[examined]

	changed chan struct{} // of one element
	settle  time.Duration // settled, but in tests
}

// examined is the outcome of an examination.
type examined struct {
	report doctor.Report
	at     time.Time
}

func newPractice(a *App) *practice {
	return &practice{a: a, changed: make(chan struct{}, 1), settle: settled}
}

// soon has the server examined again: the network, the router or the configuration has changed. It does not wait.
func (p *practice) soon() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// rounds examines at the start, every so often and after changes, until the context ends.
func (p *practice) rounds(ctx context.Context, every time.Duration) {
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	calm := time.NewTimer(p.settle)
	calm.Stop()
	said := ""
	for {
		if report := p.examine(ctx, nil); ctx.Err() == nil && report.Summary() != said {
			said = report.Summary()
			p.say(report)
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-p.changed:
				calm.Reset(p.settle)
			case <-calm.C:
				waiting = false
			case <-tick.C:
				said, waiting = "", false
			}
		}
	}
}

// say logs what was found.
func (p *practice) say(report doctor.Report) {
	for _, c := range report.Checks {
		if c.Verdict == doctor.Fail {
			p.a.log.Warn("the doctor finds a fault", logCheck, c.Name, logSaw, c.Saw, logRemedy, c.Remedy)
		}
	}
	p.a.log.Info("examined", logVerdict, report.Summary())
}

// examine runs all checks; one examination waits for another.
func (p *practice) examine(ctx context.Context, tell func(doctor.Progress)) doctor.Report {
	p.busy.Lock()
	defer p.busy.Unlock()
	bounded, cancel := context.WithTimeout(ctx, examTime)
	defer cancel()
	report := p.a.subject().Examine(bounded, tell)
	if ctx.Err() == nil {
		p.last.Store(&examined{report, time.Now()})
	}
	return report
}

// readiness is the last examination in short.
func (p *practice) readiness() *readyDoctor {
	last := p.last.Load()
	if last == nil {
		return nil
	}
	r := last.report
	return &readyDoctor{Verdict: string(r.Worst()), Fail: r.With(doctor.Fail), Warn: r.With(doctor.Warn), At: last.at.UTC()}
}

func (p *practice) stats() metrics.DoctorStats {
	last := p.last.Load()
	if last == nil {
		return metrics.DoctorStats{}
	}
	out := metrics.DoctorStats{At: last.at, Checks: make(map[string]int)}
	for _, c := range last.report.Checks {
		out.Checks[c.Name] = map[doctor.Verdict]int{doctor.Warn: 1, doctor.Fail: 2}[c.Verdict]
	}
	return out
}

// subject is this server as the doctor sees it.
func (a *App) subject() doctor.Subject {
	cfg := a.live.Load().cfg
	s := subject(cfg, a.addr)
	s.Running = "callbox " + a.opts.Version + " runs as node " + a.bus.Self().Name()
	if a.opts.Patient {
		s.Running = "no server ran here; callbox " + a.opts.Version + " was started to be examined"
	}
	if a.redirect == nil {
		s.Endpoints = slices.DeleteFunc(s.Endpoints, func(e doctor.Endpoint) bool {
			if e.Setting != "http-listen" {
				return false
			}
			s.Without = append(s.Without, e)
			return true
		})
	}
	if a.opts.PatientData != "" {
		s.Data = a.opts.PatientData
	}
	s.Certificate = func(ctx context.Context) doctor.Certificate { return examinedCertificate(a.awaitCertificate(ctx), cfg) }
	if names := a.opts.PatientDomains; len(names) > 0 {
		s.Domains = domainNames(names)
		s.Certificate = func(context.Context) doctor.Certificate {
			return doctor.Certificate{Kind: doctor.ACME, Names: names, Missing: names}
		}
	}
	s.Network = a.examinedNetwork
	s.Credential = func() doctor.Credential {
		l := a.live.Load()
		user, password, _ := l.turn.Credential(auth.Handle(a.secrets.Master, doctorOwner+rand.Text(), doctorOwner), doctorTTL, time.Now())
		return doctor.Credential{Username: user, Password: password, Realm: l.cfg.Realm}
	}
	return s
}

// Diagnose examines what can be without a server, where New has failed.
func Diagnose(ctx context.Context, cfg config.Config, failed error, tell func(doctor.Progress)) doctor.Report {
	s := subject(cfg, cfg.Listen)
	s.Start = failed
	s.Network = func(ctx context.Context) doctor.Network {
		report, _ := nat.Discover(ctx, probeOf(cfg, true)) // its error is in the report too
		return networkFacts(report, cfg, hostAddrs(), false)
	}
	ctx, cancel := context.WithTimeout(ctx, examTime)
	defer cancel()
	return s.Examine(ctx, tell)
}

// subject is what the configuration alone tells.
func subject(cfg config.Config, at netip.AddrPort) doctor.Subject {
	s := doctor.Subject{
		Endpoints: []doctor.Endpoint{{Network: "tcp", Addr: at, Setting: "listen"}, {Network: "udp", Addr: at, Setting: "listen"}},
		Data:      cfg.Data,
		Domains:   domainNames(cfg.Domains),
		Buffer:    relay.ListenBuffer,
		Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		},
	}
	for _, l := range cfg.TURNListen {
		network := "tcp"
		if l.Network == "udp" {
			network = "udp"
		}
		if l.Addr.Port() != 0 {
			s.Endpoints = append(s.Endpoints, doctor.Endpoint{Network: network, Addr: l.Addr, Setting: "turn-listen"})
		}
	}
	if cfg.HTTPListen.IsValid() && cfg.HTTPListen.Port() != 0 {
		s.Endpoints = append(s.Endpoints, doctor.Endpoint{Network: "tcp", Addr: cfg.HTTPListen, Setting: "http-listen"})
	}
	if m := cfg.MetricsListen.Addr; m.IsValid() && m.Port() != 0 {
		s.Endpoints = append(s.Endpoints, doctor.Endpoint{Network: "tcp", Addr: m, Setting: "metrics-listen"})
	}
	if !cfg.RelayPorts.None() {
		s.RelayPorts = int(cfg.RelayPorts.High) - int(cfg.RelayPorts.Low) + 1
	}
	if cfg.Clustered() {
		s.Redis = func(ctx context.Context) doctor.Redis { return examinedRedis(ctx, cfg) }
		if s.SecretFile = cfg.ClusterSecretFile; s.SecretFile == "" {
			s.SecretFile = cfg.TURNSecretFile
		}
		s.ReadSecret = func() ([]byte, error) {
			lines, err := datadir.ReadSecrets(s.SecretFile)
			if err != nil {
				return nil, err
			}
			return lines[0], nil
		}
	}
	return s
}

// domainNames are those of --domain that the DNS knows: not the addresses.
func domainNames(domains []string) (names []string) {
	for _, d := range domains {
		if _, err := netip.ParseAddr(d); err != nil {
			names = append(names, d)
		}
	}
	return names
}

// awaitCertificate is how it stands with the certificate, where one is being ordered once that has gone well or failed.
func (a *App) awaitCertificate(ctx context.Context) certs.State {
	ctx, cancel := context.WithTimeout(ctx, firstOrder)
	defer cancel()
	tick := time.NewTicker(lookPoll)
	defer tick.Stop()
	for {
		state := a.CertificateState()
		if len(state.Missing) == 0 || state.Err != nil {
			return state
		}
		select {
		case <-ctx.Done():
			return state
		case <-tick.C:
		}
	}
}

// examinedCertificate tells the doctor what the server knows of its certificate.
func examinedCertificate(state certs.State, cfg config.Config) doctor.Certificate {
	c := doctor.Certificate{Trusted: state.Trusted, Names: state.Names, Missing: state.Missing}
	switch state.Source {
	case certs.SourceACME:
		c.Kind = doctor.ACME
	case certs.SourceFiles:
		c.Kind, c.Names = doctor.OwnFile, cfg.HostNames()
	default:
		c.Kind = doctor.LocalCA
	}
	if state.Err != nil {
		c.Trouble = state.Err.Error()
		c.Out = strings.Contains(c.Trouble, certs.ErrUnreachable.Error()) // another node's failure is a text alone
	}
	return c
}

func examinedRedis(ctx context.Context, cfg config.Config) doctor.Redis {
	e, err := redis.Examine(ctx, string(cfg.Bus))
	out := doctor.Redis{
		URL: cfg.Bus.Masked(), Err: err, Latency: e.Latency, Ahead: e.Ahead, Version: e.Version,
		Policy: e.Eviction, Bound: e.MaxMemory, SaveFailed: e.SaveFailed, Persists: "keeps nothing on disk that it would miss",
	}
	if e.AppendOnly {
		out.Persists = "append-only file"
	}
	return out
}

// controlDoctor answers with lines of JSON: progress as it goes, the report at the end.
func (a *App) controlDoctor(w http.ResponseWriter, r *http.Request) {
	say := a.lines(w, r, examTime)
	// A report that nobody waits for any more is not made.
	report := a.doctor.examine(r.Context(), func(p doctor.Progress) { say(control.DoctorLine{Progress: &p}) })
	say(control.DoctorLine{Report: &report})
}

// lines answers with one JSON value a line, each sent at once, for at most so long.
func (a *App) lines(w http.ResponseWriter, r *http.Request, within time.Duration) func(any) {
	c := http.NewResponseController(w)
	// A request whose time to be read is over counts as hung up.
	end := time.Now().Add(within + goodbye)
	if err := errors.Join(c.SetReadDeadline(end), c.SetWriteDeadline(end)); err != nil {
		a.log.Warn("long answer not prolonged", logError, err)
	}
	// Only behind a body that was read does the server notice that the other side hangs up. Its size is bounded.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		a.log.Debug("request body", logError, err)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	return func(v any) {
		if enc.Encode(v) == nil {
			_ = c.Flush() // whoever has gone is noticed by the context
		}
	}
}
