package auth

import "container/list"

// ledger remembers the failures of a bounded number of subjects; past it, the
// one that was changed the longest ago is forgotten.
type ledger struct {
	size  int
	bykey map[string]*list.Element
	order *list.List // of ledgerEntry, the latest change first
}

type ledgerEntry struct {
	subject string
	failures
}

func newLedger(size int) ledger {
	return ledger{size: size, bykey: make(map[string]*list.Element), order: list.New()}
}

func (l *ledger) get(subject string) failures {
	if e, ok := l.bykey[subject]; ok {
		return e.Value.(ledgerEntry).failures
	}
	return failures{}
}

func (l *ledger) put(subject string, f failures) {
	if f.Count == 0 {
		l.remove(subject)
		return
	}
	if e, ok := l.bykey[subject]; ok {
		e.Value = ledgerEntry{subject, f}
		l.order.MoveToFront(e)
		return
	}
	if l.order.Len() >= l.size {
		l.remove(l.order.Back().Value.(ledgerEntry).subject)
	}
	l.bykey[subject] = l.order.PushFront(ledgerEntry{subject, f})
}

func (l *ledger) remove(subject string) {
	if e, ok := l.bykey[subject]; ok {
		l.order.Remove(e)
		delete(l.bykey, subject)
	}
}
