package redis

import (
	"sync"
	"time"

	"github.com/redis/rueidis"

	"callbox/bus"
)

// Bounds of one link.
const (
	maxQueued      = 16384     // messages accepted and not yet acknowledged
	maxQueuedBytes = 16 << 20  // and their bytes
	windowBytes    = 1 << 20   // published and not yet acknowledged
	frameBytes     = 256 << 10 // in one publication, unless one message is larger
	frameMessages  = 1024

	receiptAfter = 250 * time.Millisecond  // a receipt waits for messages to ride on, or more to cover
	receiptCount = 256                     // but not when so many messages
	receiptBytes = 128 << 10               // or bytes have come
	probeAfter   = 1500 * time.Millisecond // without a receipt
	backEvery    = 100 * time.Millisecond
	staleAfter   = 15 * time.Second // an unpublished message waits for Redis
	forgetAfter  = 10 * time.Minute // a gone node's numbers are kept
)

// link is the way to one other node: what is to be published to it, and the
// receipts owed to it.
//
// Messages are numbered from base; those below next have been or are being
// published. Those below doubt (never below next) may have been received; the
// others surely have not.
type link struct {
	b    *Bus
	to   bus.NodeID
	wake chan struct{} // one token

	// owned by whoever holds Bus.deliver
	inStream, inNext uint64

	made time.Time // constant

	mu       sync.Mutex
	term     uint64 // of the receiver; names its channel; 0: not known
	stream   uint64
	queue    []outgoing
	bytes    int // in queue
	base     uint64
	next     uint64
	doubt    uint64
	window   int       // bytes from base to next
	moved    time.Time // last publication or receipt
	wentBack time.Time

	gone     bool          // nobody listens there
	deadline time.Duration // gone: its lease as known then, Redis' clock
	goneAt   time.Time     // it left the view

	owed     int // messages without receipt
	owedSize int
	owedAt   time.Time
	owedNow  bool
	owedGap  bool
	sleepsTo time.Time // when run looks again by itself
	ackOf    uint64    // stream
	ack      uint64

	ending  bool
	flushes bool // ending: publish what is queued first
	endBy   time.Time
}

type outgoing struct {
	data []byte
	at   time.Time
}

func newLink(b *Bus, to bus.NodeID) *link {
	return &link{
		b: b, to: to, wake: make(chan struct{}, 1),
		made: time.Now(), stream: uint64(time.Now().UnixMicro()), base: 1, next: 1, doubt: 1,
	}
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (b *Bus) wakeLinks() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.peers {
		l.signal()
	}
}

// put queues a message.
func (l *link) put(data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ending:
		return bus.ErrClosed
	case l.gone:
		return bus.ErrNodeGone
	case len(l.queue) >= maxQueued || l.bytes+len(data) > maxQueuedBytes:
		return bus.ErrBusy
	}
	l.queue = append(l.queue, outgoing{data, time.Now()})
	l.bytes += len(data)
	l.signal()
	return nil
}

// end makes run return, after it has published what is queued if flush is set.
func (l *link) end(flush bool) {
	l.mu.Lock()
	l.ending, l.flushes, l.endBy = true, flush, time.Now().Add(time.Second)
	l.mu.Unlock()
	l.signal()
}

// nodeSeen says that the node is in the list. Called with Bus.mu.
func (l *link) nodeSeen(s *seen) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.goneAt = time.Time{}
	if s.term > l.term {
		l.term = s.term
		l.gone = false
	}
	if l.gone && s.deadline > l.deadline {
		l.gone = false // it has renewed since nobody listened
	}
	l.signal()
}

// nodeGone says that the node's lease is over: it delivers nothing from before
// any more, so everything comes back. True when the link can be forgotten.
// Called with Bus.mu.
func (l *link) nodeGone(asked, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made.After(asked) || l.term == 0 && !l.gone {
		return false // it may be newer than the list; the writer finds out
	}
	if l.goneAt.IsZero() {
		l.goneAt = now
	}
	l.gone, l.deadline = true, 0
	l.handBack(l.base, bus.ErrNodeGone)
	if now.Sub(l.goneAt) > forgetAfter && len(l.queue) == 0 {
		l.ending, l.flushes = true, false
		l.signal()
		return true
	}
	return false
}

// handBack returns the messages from number on. Called with the lock.
func (l *link) handBack(number uint64, why error) {
	l.back(number)
	keep := int(number - l.base)
	for _, m := range l.queue[keep:] {
		l.bytes -= len(m.data)
		l.b.queue.PutLost(l.to, m.data, why)
	}
	clear(l.queue[keep:])
	l.queue = l.queue[:keep]
	if l.doubt > number {
		// These may have been received: their numbers are not used again.
		l.base, l.next = l.doubt, l.doubt
	}
}

// run publishes, one frame at a time: what is queued meanwhile goes with the
// next. Started by Bus.link, ended by end or nodeGone.
func (l *link) run() {
	b := l.b
	defer b.links.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var buf []byte
	for {
		f, channelTerm, wait, done := l.compose(time.Now())
		if done {
			return
		}
		if f == nil {
			timer.Reset(wait)
			select {
			case <-l.wake:
			case <-timer.C:
			}
			continue
		}
		if channelTerm == 0 {
			if !l.find(f) {
				l.pause(timer)
			}
			continue
		}
		started := time.Now()
		buf = f.append(buf[:0])
		n, err := b.publish(b.keys.nodeChannel(l.to, channelTerm), rueidis.BinaryString(buf))
		if err != nil {
			buf = nil // it may still be read
		}
		if err == nil && len(f.messages) > 0 {
			b.counters.Observe(time.Since(started))
		}
		if cap(buf) > 2*frameBytes {
			buf = nil
		}
		if !l.published(f, channelTerm, n, err) {
			l.pause(timer)
		}
	}
}

// pause waits a little before another attempt.
func (l *link) pause(timer *time.Timer) {
	timer.Reset(jitter(100 * time.Millisecond))
	<-timer.C
}

// compose makes the next frame, or says how long nothing is to be done.
func (l *link) compose(now time.Time) (f *frame, term uint64, wait time.Duration, done bool) {
	up := l.b.up.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.base + uint64(len(l.queue)) - l.next
	wait = time.Hour
	if l.ending {
		if !l.flushes || waiting == 0 && l.owed == 0 || l.gone || !up || !now.Before(l.endBy) {
			return nil, 0, 0, true
		}
		wait = l.endBy.Sub(now)
	}
	if !up {
		l.dropStale(now)
		return nil, 0, time.Second, false
	}
	if l.gone {
		// What is in doubt waits for the end of the lease; receipts are no use.
		l.owed, l.owedSize, l.owedNow, l.owedGap = 0, 0, false, false
		return nil, 0, wait, false
	}
	f = &frame{from: l.b.self, term: l.b.term.Load(), stream: l.stream, base: l.base, first: l.next, ackStream: l.ackOf, ack: l.ack, doubt: l.doubt}
	if waiting > 0 && (l.window < windowBytes || l.next == l.base) {
		size := 0
		for _, m := range l.queue[l.next-l.base:] {
			if len(f.messages) == frameMessages || size > 0 && size+len(m.data) > frameBytes {
				break
			}
			f.messages = append(f.messages, m.data)
			size += len(m.data)
		}
		l.next += uint64(len(f.messages))
		l.doubt = max(l.doubt, l.next)
		l.window += size
		l.moved = now
	}
	probe := l.next > l.base && now.Sub(l.moved) >= probeAfter
	receipt := l.owedNow || l.owed > 0 && (l.ending || now.Sub(l.owedAt) >= receiptAfter)
	if len(f.messages) == 0 && !probe && !receipt {
		if l.next > l.base {
			wait = min(wait, probeAfter-now.Sub(l.moved))
		}
		if l.owed > 0 {
			wait = min(wait, receiptAfter-now.Sub(l.owedAt))
		} else if now.Sub(l.owedAt) < 4*receiptAfter {
			// More is likely to come: rather look again than be woken by each.
			wait = min(wait, receiptAfter)
		}
		l.sleepsTo = now.Add(wait)
		return nil, 0, wait, false
	}
	if probe {
		f.flags |= flagProbe
		l.moved = now
	}
	if l.owedGap {
		f.flags |= flagGap
	}
	l.owed, l.owedSize, l.owedNow, l.owedGap = 0, 0, false, false
	l.sleepsTo = now // it will look again after this
	return f, l.term, 0, false
}

// dropStale hands back what has waited too long for Redis and has surely not
// been received. Called with the lock.
func (l *link) dropStale(now time.Time) {
	i := int(l.doubt - l.base)
	if i < len(l.queue) && now.Sub(l.queue[i].at) > staleAfter {
		l.handBack(l.doubt, bus.ErrNoLink)
	}
}

// published takes in the result of a publication. False: wait before the next.
func (l *link) published(f *frame, term uint64, receivers int64, err error) bool {
	if err == nil && receivers > 0 {
		return true
	}
	_, said := rueidis.IsRedisErr(err)
	l.unpublished(f, err == nil || said)
	if err != nil {
		l.b.sawTrouble()
		l.b.kickKeeper()
		return false
	}
	if len(f.messages) == 0 && f.flags&flagProbe == 0 {
		return true // a receipt nobody wants
	}
	if l.b.troubled() {
		return false
	}
	// Nobody listens. Either the node listens elsewhere by now, or it is gone.
	if l.b.refresh(l.b.ctx) != nil {
		return false
	}
	known := l.b.seen(l.to)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term {
		return true
	}
	l.gone = true
	if known != nil {
		l.deadline = known.deadline
	}
	l.handBack(l.doubt, bus.ErrNodeGone)
	return true
}

// unpublished takes a frame's messages back to be published again; surely says
// that nobody has received them.
func (l *link) unpublished(f *frame, surely bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end := f.first + uint64(len(f.messages)); surely && l.doubt == end {
		l.doubt = max(f.doubt, l.base)
	}
	l.back(max(f.first, l.base))
}

// find looks for a node that is not known yet. False: wait before trying
// again.
func (l *link) find(f *frame) bool {
	l.unpublished(f, true)
	if l.b.refresh(l.b.ctx) != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == 0 {
		l.gone = true
		l.handBack(l.base, bus.ErrNodeGone)
	}
	return true
}

func (b *Bus) seen(id bus.NodeID) *seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.view[id]
}
