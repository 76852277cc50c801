package doctor

import (
	"fmt"
	"strings"
	"time"
)

const (
	// clockWarn is how far the clock may be off before other nodes and token issuers notice.
	clockWarn = 5 * time.Second
	// clockFail is how far off it makes certificates, tokens and TURN credentials of others end early or late.
	clockFail = time.Minute
)

// Clock is what the clock of this machine can be compared with. None of it asks a server that callbox does not use anyway.
type Clock struct {
	Now     time.Time
	Offsets []Offset
	// Not before: times that are past for certain, such as the start of the certificate, or when this program was built.
	Past []Moment
	// Synced is what the kernel says of its own clock: set by NTP, or not; nil: it does not say.
	Synced *bool
}

// Offset is how far another clock is ahead of this machine's.
type Offset struct {
	Source string // as "Redis"
	Ahead  time.Duration
}

// Moment is something that has happened.
type Moment struct {
	What string // as "the certificate begins"
	At   time.Time
}

const setClock = "set the clock, and let NTP keep it: sudo timedatectl set-ntp true"

// clock judges the time of this machine.
func clock(c Clock) Check {
	for _, m := range c.Past {
		if early := m.At.Sub(c.Now); early > clockFail {
			return failure(NameClock, fmt.Sprintf("it is %s here, but %s at %s: the clock is behind by %s or more",
				stamp(c.Now), m.What, stamp(m.At), brief(early)), setClock)
		}
	}
	var worst Offset
	var saw []string
	for _, o := range c.Offsets {
		if o.Ahead.Abs() >= worst.Ahead.Abs() {
			worst = o
		}
		saw = append(saw, fmt.Sprintf("within %s of %s", brief(o.Ahead.Abs()), o.Source))
	}
	switch off := worst.Ahead.Abs(); {
	case off > clockFail:
		return failure(NameClock, differs(worst), setClock)
	case off > clockWarn:
		return warning(NameClock, differs(worst), setClock)
	}
	synced := c.Synced != nil && *c.Synced
	if synced {
		saw = append(saw, "the kernel says that NTP keeps it")
	}
	switch {
	case len(saw) > 0:
		return good(NameClock, strings.Join(saw, "; "))
	case c.Synced != nil:
		return warning(NameClock, "nothing here to compare with, and the kernel says that no NTP keeps it", setClock+" (in a container or guest the host does; then this is no fault)")
	}
	return skipped(NameClock, "unknown: nothing here to compare with")
}

func differs(o Offset) string {
	way := "behind"
	if o.Ahead < 0 {
		way = "ahead of"
	}
	return fmt.Sprintf("%s %s %s", brief(o.Ahead.Abs()), way, o.Source)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
