package relay

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// epoch is long before any moment that is told by it, so that no tick is zero or less. It does not change.
var epoch = time.Now().Add(-100 * 365 * 24 * time.Hour)

// tick is a moment as a number of nanoseconds that only grow: when the host's clock is set, permissions, channels and buckets must not
// notice, as pion's timers do not.
func tick(now time.Time) int64 { return int64(now.Sub(epoch)) }

// bucket is a token bucket in one number: the time at which it will be full again. It never allocates and never waits.
type bucket struct{ full atomic.Int64 } // a tick

// take spends cost, a time at the allowed rate, and reports false if that overdraws a bucket that holds burst. A full one pays for
// anything: a rate so low that one packet takes more than the burst is slow, not nothing at all.
func (b *bucket) take(cost, burst time.Duration, now time.Time) bool {
	t := tick(now)
	for {
		old := b.full.Load()
		next := max(old, t) + int64(cost)
		if next-t > int64(burst) && old > t {
			return false
		}
		if b.full.CompareAndSwap(old, next) {
			return true
		}
	}
}

// rate is a bit rate with the burst that a moment of video needs.
type rate struct {
	bits   int64 // a second; 0: no bound
	bucket bucket
}

const rateBurst = time.Second / 2

// take spends the bits of n bytes.
func (r *rate) take(n int, now time.Time) bool {
	return r.bits <= 0 || r.bucket.take(time.Duration(int64(n)*8*int64(time.Second)/r.bits), rateBurst, now)
}

// prefixLimit bounds how often strangers are answered, by source prefix. It has a fixed number of buckets; prefixes that meet
// in one share it, and who meets whom cannot be foreseen.
type prefixLimit struct {
	seed    maphash.Seed
	cost    time.Duration // of one answer; negative: no bound
	burst   time.Duration
	buckets [1 << 14]bucket
}

func newPrefixLimit(perSecond, burst int) *prefixLimit {
	l := &prefixLimit{seed: maphash.MakeSeed(), cost: -1}
	if perSecond > 0 {
		l.cost = time.Second / time.Duration(perSecond)
		l.burst = l.cost * time.Duration(burst)
	}
	return l
}

// allow spends one answer to the address.
func (l *prefixLimit) allow(a netip.Addr, now time.Time) bool {
	if l.cost < 0 {
		return true
	}
	h := maphash.Comparable(l.seed, sourcePrefix(a))
	return l.buckets[h%uint64(len(l.buckets))].take(l.cost, l.burst, now)
}

// sourcePrefix is what one party can be expected to send from: /24, or /56 of IPv6.
func sourcePrefix(a netip.Addr) netip.Prefix {
	bits := 24
	if a = a.Unmap().WithZone(""); a.Is6() {
		bits = 56
	}
	p, _ := a.Prefix(bits)
	return p
}
