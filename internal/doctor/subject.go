package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Subject is what is examined: a configuration, and the server that runs by it. Functions that are nil have nothing to tell.
type Subject struct {
	// Running describes the server that answers the probes; "" where none could be started, for which Start says why.
	Running string
	Start   error

	Endpoints []Endpoint // the first two are the one port, TCP and UDP
	Without   []Endpoint // those that the server could not open, and works without
	Data      string     // data directory
	// RelayPorts is how many ports the relay may open; 0 sealed. Buffer is what it asks for each UDP socket, in bytes.
	RelayPorts int
	Buffer     int

	Now    func() time.Time
	Clocks func(ctx context.Context) []Offset // besides Redis
	// Redis asks the bus; nil: one process alone.
	Redis func(ctx context.Context) Redis
	// SecretFile is what the nodes share; ReadSecret reads its first line.
	SecretFile string
	ReadSecret func() ([]byte, error)

	// Certificate says all but Leaf and Served, which come from a handshake.
	Certificate func(ctx context.Context) Certificate
	Domains     []string // --domain, names only
	Lookup      func(ctx context.Context, name string) ([]netip.Addr, error)
	Network     func(ctx context.Context) Network
	Credential  func() Credential // each of another owner, so that no quota of one counts two
}

// Progress is told before each step of an examination.
type Progress struct {
	Name string `json:"name"` // of the check that is next
	Done int    `json:"done"`
	Of   int    `json:"of"`
}

// examination is one run of all checks, with what later ones need of earlier ones.
type examination struct {
	Subject
	network Network
	redis   Redis
	leaf    Certificate
	newest  time.Time // of the files in the data directory
	// hairpins is what came of trying the public address behind a NAT; it was not tried where At is invalid.
	hairpins Hairpin
}

// Examine runs all checks, one after another. It ends soon after the context does; what had not been looked at by then is
// missing from the report. Each step has a bound of its own: all in all it takes under a minute where nothing answers.
func (s Subject) Examine(ctx context.Context, tell func(Progress)) Report {
	x := &examination{Subject: s}
	if x.Now == nil {
		x.Now = time.Now
	}
	steps := []struct {
		name string
		run  func(context.Context) Check
	}{
		// In the order of need; the table's order is that of the names below.
		{NameServer, x.server}, {NameListening, x.listening}, {NamePrivilege, x.privilege}, {NameData, x.data},
		{NameDisk, x.disk}, {NameFiles, x.files}, {NameBuffers, x.buffers}, {NameSecret, x.secret}, {NameRedis, x.askRedis},
		{NamePublic, x.public}, {NameNAT, x.nat}, {NameCGNAT, x.cgnat}, {NameRouter, x.router},
		{NameCertificate, x.certificate}, {NameDNS, x.dns}, {NameClock, x.clock}, {NameHairpin, x.hairpin}, {NameSTUN, x.stun},
		{NameRelayUDP, x.relay("udp")}, {NameRelayTCP, x.relay("tcp")}, {NameRelayTLS, x.relay("tls")},
	}
	done := map[string]Check{}
	for i, step := range steps {
		if ctx.Err() != nil {
			break
		}
		if tell != nil {
			tell(Progress{Name: step.name, Done: i, Of: len(steps)})
		}
		check := step.run(ctx)
		if ctx.Err() == nil { // a check cut off in the middle has nothing true to say
			done[step.name] = check
		}
	}
	report := Report{Checks: []Check{}}
	for _, name := range order() {
		if c, ok := done[name]; ok {
			report.Checks = append(report.Checks, c)
		}
	}
	return report
}

// order is that of the table.
func order() []string {
	return []string{
		NameServer, NameListening, NamePrivilege, NameClock, NameData, NameDisk, NameFiles, NameBuffers, NameSecret, NameRedis,
		NameCertificate, NameDNS, NamePublic, NameNAT, NameCGNAT, NameRouter, NameHairpin, NameSTUN, NameRelayUDP, NameRelayTCP, NameRelayTLS,
	}
}

const notStarted = "not tried: no server could be started"

// server judges whether there is something to examine.
func (x *examination) server(context.Context) Check {
	if x.Start != nil {
		return failure(NameServer, "does not start: "+x.Start.Error(), "see the checks below that fail; else the message says what to do")
	}
	return good(NameServer, x.Running)
}

func (x *examination) listening(ctx context.Context) Check {
	if x.Running == "" {
		return listening(false, tryBind(x.Endpoints))
	}
	var all []Heard
	for _, e := range x.Endpoints {
		h := Heard{Endpoint: e}
		if e.Network == "udp" {
			_, h.Err = askBinding(ctx, near(e.Addr))
		} else {
			h.Err = connects(ctx, near(e.Addr))
		}
		all = append(all, h)
	}
	return listening(true, all, tryBind(x.Without)...)
}

// near is the address at which this machine reaches its own listener.
func near(at netip.AddrPort) netip.AddrPort {
	switch addr := at.Addr(); {
	case addr == netip.IPv4Unspecified(), addr == netip.IPv6Unspecified(): // the latter takes both families
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return at
}

func (x *examination) privilege(context.Context) Check {
	p := lookAtPrivilege()
	p.Bound = x.Running != ""
	return privilege(p, x.Endpoints)
}

func (x *examination) data(context.Context) Check {
	d := lookAtData(x.Data)
	x.newest = d.Newest
	return data(d)
}

func (x *examination) disk(context.Context) Check { return disk(lookAtDisk(x.Data)) }

func (x *examination) files(context.Context) Check {
	f := lookAtFiles()
	f.Ports = x.RelayPorts
	return files(f)
}

func (x *examination) buffers(context.Context) Check { return buffers(lookAtBuffers(x.Buffer)) }

func (x *examination) secret(context.Context) Check {
	if x.ReadSecret == nil {
		return secret(Secret{Solo: true})
	}
	text, err := x.ReadSecret()
	return secret(Secret{Path: x.SecretFile, Err: err, Len: len(text), Weak: weak(text)})
}

func (x *examination) askRedis(ctx context.Context) Check {
	x.redis = Redis{Solo: true}
	if x.Redis != nil {
		x.redis = x.Redis(ctx)
	}
	return redis(x.redis)
}

func (x *examination) public(ctx context.Context) Check {
	if x.Network != nil {
		x.network = x.Network(ctx)
	}
	x.network.Loopback = x.Endpoints[0].Addr.Addr().IsLoopback()
	return publicAddress(x.network)
}

func (x *examination) nat(context.Context) Check   { return natKind(x.network) }
func (x *examination) cgnat(context.Context) Check { return cgnat(x.network) }
func (x *examination) router(context.Context) Check {
	return routerMapping(x.network, x.Endpoints[0].Addr.Port())
}

func (x *examination) certificate(ctx context.Context) Check {
	if x.Running == "" || x.Certificate == nil {
		return skipped(NameCertificate, notStarted)
	}
	c := x.Certificate(ctx)
	c.Now = x.Now()
	name := ""
	if len(c.Names) > 0 {
		name = c.Names[0]
	}
	ctx, cancel := context.WithTimeout(ctx, tripTime)
	defer cancel()
	c.Leaf, c.Served = servedCertificate(ctx, near(x.Endpoints[0].Addr), name)
	x.leaf = c
	return certificate(c)
}

func (x *examination) dns(ctx context.Context) Check {
	// The address that is seen from outside is one of several that IPv6 gives a machine, and the record may have another.
	n := Names{Own: slices.Concat(x.network.Given, x.network.Found, x.network.Local)}
	if public := x.network.public(); len(public) > 0 {
		n.Wanted = append(n.Wanted, public...)
	}
	if x.network.Kind == NoNAT || len(n.Wanted) == 0 && x.network.Offline {
		n.Wanted = append(n.Wanted, x.network.Local...)
	}
	for _, name := range x.Domains {
		ctx, cancel := context.WithTimeout(ctx, tripTime)
		addrs, err := x.Lookup(ctx, name)
		cancel()
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		n.Asked = append(n.Asked, Resolved{Name: name, Addrs: addrs, Err: err})
	}
	return dns(n)
}

func (x *examination) clock(ctx context.Context) Check {
	c := Clock{Now: x.Now(), Synced: kernelSynced()}
	if x.Redis != nil && x.redis.Err == nil {
		c.Offsets = append(c.Offsets, Offset{Source: "Redis", Ahead: x.redis.Ahead})
	}
	if x.Clocks != nil {
		c.Offsets = append(c.Offsets, x.Clocks(ctx)...)
	}
	if x.leaf.Leaf != nil && x.leaf.Kind != LocalCA { // the local one is made by this very clock
		c.Past = append(c.Past, Moment{What: "the certificate begins", At: x.leaf.Leaf.NotBefore})
	}
	if built, ok := builtAt(); ok {
		c.Past = append(c.Past, Moment{What: "this program was made", At: built})
	}
	if !x.newest.IsZero() { // the clock has gone back since
		c.Past = append(c.Past, Moment{What: "the data directory was written", At: x.newest})
	}
	return clock(c)
}

// built is set by packaging/release: the seconds since 1970 of the commit. Its programs have no record of the version control,
// which would differ by where they are built.
var built string

// builtAt is the time of the commit that the program was built from.
func builtAt() (time.Time, bool) {
	if seconds, err := strconv.ParseInt(built, 10, 64); err == nil {
		return time.Unix(seconds, 0), true
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}, false
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			at, err := time.Parse(time.RFC3339, s.Value)
			return at, err == nil
		}
	}
	return time.Time{}, false
}

// publicAt is the one port at the public address; invalid where none is known or others do not reach the server anyway.
func (x *examination) publicAt() netip.AddrPort {
	if all := x.network.public(); len(all) > 0 && !x.network.Loopback {
		return netip.AddrPortFrom(all[0], x.Endpoints[0].Addr.Port())
	}
	return netip.AddrPort{}
}

// localAt is the one port at an address of this machine: that towards the network where there is one.
func (x *examination) localAt() netip.AddrPort {
	at := near(x.Endpoints[0].Addr)
	if x.Endpoints[0].Addr.Addr().IsUnspecified() && len(x.network.Local) > 0 {
		return netip.AddrPortFrom(x.network.Local[0], at.Port())
	}
	return at
}

func (x *examination) hairpin(ctx context.Context) Check {
	h := Hairpin{At: x.publicAt()}
	if x.Running == "" {
		return skipped(NameHairpin, notStarted)
	}
	if h.At.IsValid() && x.network.behind() {
		h = tryHairpin(ctx, h.At)
		x.hairpins = h
	}
	return hairpin(x.network, h)
}

func (x *examination) stun(ctx context.Context) Check {
	if x.Running == "" {
		return skipped(NameSTUN, notStarted)
	}
	at := x.localAt()
	if p := x.publicAt(); p.IsValid() && !x.network.behind() {
		at = p
	}
	mapped, err := askBinding(ctx, at)
	return bindingAnswer(at, mapped, err)
}

// bindingAnswer judges whether clients learn their addresses here.
func bindingAnswer(at, mapped netip.AddrPort, err error) Check {
	switch {
	case err != nil:
		return failure(NameSTUN, fmt.Sprintf("%v does not answer: %v", at, err), fmt.Sprintf("let the firewall of this machine pass UDP port %d", at.Port()))
	case !mapped.Addr().IsValid():
		return failure(NameSTUN, fmt.Sprintf("%v answers without an address", at), "another program answers there: stop it, or choose another port with --listen")
	}
	return good(NameSTUN, fmt.Sprintf("%v answers, and sees this machine as %v", at, mapped.Addr()))
}

func (x *examination) relay(network string) func(context.Context) Check {
	return func(ctx context.Context) Check {
		if x.Running == "" || x.Credential == nil {
			return skipped(tripName(network), notStarted)
		}
		r := RelayTrip{Network: network, Port: x.Endpoints[0].Addr.Port(), Public: x.publicAt(), Local: x.localAt(), Behind: x.network.behind(), CGNAT: x.network.CGNAT, Mapped: x.network.Router == RouterMapped}
		// Where the address itself is silent from here, waiting for its relay tells nothing more.
		if r.PublicErr = x.hairpins.TCP; network == "udp" {
			r.PublicErr = x.hairpins.UDP
		}
		if r.Public.IsValid() && r.PublicErr == nil {
			if r.Took, r.PublicErr = tryRelay(ctx, network, r.Public, x.Credential); r.PublicErr == nil {
				return relayTrip(r)
			}
		}
		r.Took, r.LocalErr = tryRelay(ctx, network, r.Local, x.Credential)
		return relayTrip(r)
	}
}

// Summary is a report in one line, for a log.
func (r Report) Summary() string {
	var parts []string
	for _, v := range []Verdict{Fail, Warn} {
		if names := r.With(v); len(names) > 0 {
			parts = append(parts, string(v)+": "+strings.Join(names, ", "))
		}
	}
	if len(parts) == 0 {
		return "all is well"
	}
	return strings.Join(parts, "; ")
}
