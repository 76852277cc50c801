package redis

import "time"

// heard takes in what a frame says of its sender.
func (l *link) heard(f *frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.term > l.term {
		l.term = f.term
	}
	if l.goneAt.IsZero() && f.term >= l.term {
		l.gone = false
	}
	if f.ackStream != l.stream || f.ack >= l.doubt {
		return
	}
	progress := f.ack >= l.base
	for l.base <= f.ack {
		size := len(l.queue[0].data)
		l.bytes -= size
		if l.base < l.next {
			l.window -= size
		}
		l.queue[0] = outgoing{}
		l.queue = l.queue[1:]
		l.base++
	}
	l.next, l.doubt = max(l.next, l.base), max(l.doubt, l.base)
	now := time.Now()
	if progress {
		l.moved = now
	}
	if f.flags&flagGap != 0 && (progress || now.Sub(l.wentBack) > backEvery) {
		l.wentBack = now
		l.b.counters.Resent.Add(l.next - l.base)
		l.back(l.base)
	}
	if l.next < l.base+uint64(len(l.queue)) {
		l.signal()
	}
}

// back makes number the next to be published. Called with the lock.
func (l *link) back(number uint64) {
	for number < l.next {
		l.next--
		l.window -= len(l.queue[l.next-l.base].data)
	}
}

// owe notes messages that need a receipt; called while Bus.deliver is held.
func (l *link) owe(messages, bytes int, now, gap bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.owed == 0
	l.ackOf, l.ack = l.inStream, l.inNext-1
	l.owed += messages
	l.owedSize += bytes
	l.owedGap = l.owedGap || gap
	l.owedNow = l.owedNow || now || gap || l.owed >= receiptCount || l.owedSize >= receiptBytes
	if first && messages > 0 {
		l.owedAt = time.Now()
	}
	if l.owedNow || first && messages > 0 && l.sleepsTo.After(l.owedAt.Add(2*receiptAfter)) {
		l.signal()
	}
}
