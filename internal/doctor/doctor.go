// Package doctor examines a server and the machine it runs on, and says of each thing that commonly stands between a
// download and a call what it saw, whether that will do, and what to do about it.
//
// A check is a pure function from facts to a Check; what gathers the facts stands beside it. The package knows nothing of
// callbox's other parts: it is handed functions (Subject).
package doctor

import "time"

// Verdict is what became of a check.
type Verdict string

// The verdicts. Skipped says that there was nothing to examine, or no way to.
const (
	OK      Verdict = "ok"
	Warn    Verdict = "warn"
	Fail    Verdict = "fail"
	Skipped Verdict = "skipped"
)

// Check is the outcome of one check. It is what callbox doctor --json prints.
type Check struct {
	Name    string  `json:"name"`
	Saw     string  `json:"saw"`
	Verdict Verdict `json:"verdict"`
	Remedy  string  `json:"remedy"` // "" where nothing need be done
}

// Report is the outcome of an examination, in the order of the table.
type Report struct {
	Checks []Check `json:"checks"`
}

// Names of the checks, in the order of the table.
const (
	NameServer      = "server"
	NameListening   = "listening"
	NamePrivilege   = "port permission"
	NameClock       = "clock"
	NameData        = "data directory"
	NameDisk        = "disk space"
	NameFiles       = "file descriptors"
	NameBuffers     = "UDP buffers"
	NameSecret      = "cluster secret"
	NameRedis       = "Redis"
	NameCertificate = "certificate"
	NameDNS         = "DNS"
	NamePublic      = "public address"
	NameNAT         = "NAT kind"
	NameCGNAT       = "CGNAT"
	NameRouter      = "router mapping"
	NameHairpin     = "hairpin"
	NameSTUN        = "STUN"
	NameRelayUDP    = "relay over UDP"
	NameRelayTCP    = "relay over TCP"
	NameRelayTLS    = "relay over TLS"
)

// Worst is the gravest verdict of a report: Fail, Warn or OK.
func (r Report) Worst() Verdict {
	worst := OK
	for _, c := range r.Checks {
		switch {
		case c.Verdict == Fail:
			return Fail
		case c.Verdict == Warn:
			worst = Warn
		}
	}
	return worst
}

// With are the names of the checks that have a verdict.
func (r Report) With(v Verdict) []string {
	names := []string{}
	for _, c := range r.Checks {
		if c.Verdict == v {
			names = append(names, c.Name)
		}
	}
	return names
}

func good(name, saw string) Check            { return Check{name, saw, OK, ""} }
func warning(name, saw, remedy string) Check { return Check{name, saw, Warn, remedy} }
func failure(name, saw, remedy string) Check { return Check{name, saw, Fail, remedy} }
func skipped(name, why string) Check         { return Check{name, why, Skipped, ""} }

// brief writes a duration for people.
func brief(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + brief(-d)
	case d < time.Millisecond:
		return "under 1 ms"
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
