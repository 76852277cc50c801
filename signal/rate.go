package signal

import "time"

// bucket is a token bucket. Owned by one goroutine.
type bucket struct {
	tokens float64
	last   time.Time
}

// take removes n tokens if they are there; burst is twice the rate.
func (b *bucket) take(n, rate float64, now time.Time) bool {
	burst := 2 * rate
	if b.last.IsZero() {
		b.tokens = burst
	} else if d := now.Sub(b.last); d > 0 {
		b.tokens = min(burst, b.tokens+d.Seconds()*rate)
	}
	b.last = now
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

// meter is what one connection may send. Owned by the connection's reader.
type meter struct {
	messages, bytes bucket
	over            time.Time // since when messages are refused; zero: they are not
	lastOver        time.Time
	faults          int
	faultsSince     time.Time
}

type verdict int

const (
	pass     verdict = iota
	refuse           // over the rate
	overload         // over the rate for too long
)

// message judges one message of n bytes.
func (m *meter) message(n int, l *Limits, now time.Time) verdict {
	ok := m.messages.take(1, float64(l.MessageRate), now)
	ok = ok && m.bytes.take(float64(n), float64(l.MessageBytes), now)
	if ok {
		return pass
	}
	if m.over.IsZero() || now.Sub(m.lastOver) > time.Second {
		m.over = now
	}
	m.lastOver = now
	if now.Sub(m.over) >= overloadDuration {
		return overload
	}
	return refuse
}

// fault counts one fault and says whether it was one too many.
func (m *meter) fault(now time.Time) bool {
	if now.Sub(m.faultsSince) > time.Minute {
		m.faults, m.faultsSince = 0, now
	}
	m.faults++
	return m.faults > faultsPerMinute
}
