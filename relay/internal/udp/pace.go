package udp

import "time"

// pace says whether a loop is busy enough to let packets gather.
type pace struct {
	fast    bool
	packets int // that came since done was last told

	since   time.Time // when the count began
	counted int       // packets since then
	rounds  int
	vain    time.Time     // pauses bring nothing before that
	busy    time.Duration // ever
}

const (
	paceWindow = 4 * time.Millisecond
	fastPace   = 4000 // packets a second
	vainFor    = 100 * time.Millisecond
)

// did ends one round of work.
func (p *pace) did(start, end time.Time) {
	p.busy += end.Sub(start)
	p.counted += p.packets
	p.rounds++
	d := end.Sub(p.since)
	if d < paceWindow {
		return
	}
	if p.fast && 2*p.counted < 3*p.rounds {
		// Packets that come one by one all the same, each an answer to the one before: a pause only holds them up.
		p.vain = end.Add(vainFor)
	}
	p.fast = int64(p.counted)*int64(time.Second) > fastPace*int64(d) && !end.Before(p.vain)
	p.since, p.counted, p.rounds = end, 0, 0
}
