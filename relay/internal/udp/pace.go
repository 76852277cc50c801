package udp

import "time"

// pace says whether a loop is busy enough to let packets gather.
type pace struct {
	fast    bool
	packets int // that came since done was last told

	since   time.Time     // when the count began
	counted int           // packets since then
	busy    time.Duration // ever
}

const (
	paceWindow = 4 * time.Millisecond
	fastPace   = 4000 // packets a second
)

// did ends one round of work.
func (p *pace) did(start, end time.Time) {
	p.busy += end.Sub(start)
	p.counted += p.packets
	if d := end.Sub(p.since); d >= paceWindow {
		p.fast = int64(p.counted)*int64(time.Second) > fastPace*int64(d)
		p.since, p.counted = end, 0
	}
}
