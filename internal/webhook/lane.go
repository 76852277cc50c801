package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// lane is a queue of events for one receiver, of which one at a time is under way.
type lane struct {
	wake chan struct{} // of one element

	mu     sync.Mutex
	events []Event // guarded by mu; the first may be under way
	busy   bool    // guarded by mu: it is
}

// add puts an event where it belongs. One that is under way stays where it is.
func (l *lane) add(e Event) {
	l.mu.Lock()
	i := len(l.events)
	least := 0
	if l.busy {
		least = 1
	}
	for j := i - 1; j >= least; j-- {
		if l.events[j].Key == e.Key {
			if l.events[j].Rank <= e.Rank {
				break
			}
			i = j
		}
	}
	l.events = slices.Insert(l.events, i, e)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// first is the event to send and when; false: there is none.
func (l *lane) first() (Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == 0 {
		return Event{}, false
	}
	return l.events[0], true
}

func (l *lane) setBusy(busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = busy
}

// done forgets the first event.
func (l *lane) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
	l.events[0] = Event{}
	if l.events = l.events[1:]; len(l.events) == 0 {
		l.events = nil
	}
}

// run delivers a lane's events until Close, and then what is left, once.
func (s *Sender) run(r *receiver, l *lane) {
	for {
		e, ok := l.first()
		if !ok {
			select {
			case <-l.wake:
				continue
			case <-s.ending:
				if _, ok := l.first(); !ok {
					return
				}
				continue
			}
		}
		// One that belongs before it may just be on its way; afterwards none overtakes it.
		if wait := time.Until(e.at.Add(s.cfg.Linger)); wait > 0 && !s.ended() {
			s.pause(wait)
			continue
		}
		l.setBusy(true)
		if e, ok = l.first(); ok {
			s.deliver(r, e)
		}
		l.done()
		r.queued.Add(-1)
	}
}

// deliver tries until the event is taken or given up.
func (s *Sender) deliver(r *receiver, e Event) {
	wait := s.cfg.Backoff
	for tries := 0; ; tries++ {
		if tries > 0 {
			s.retried.Add(1)
		}
		err := s.post(r, e)
		switch {
		case err == nil:
			s.sent.Add(1)
			r.failing.Store(false)
			return
		case errors.Is(err, errNoKey):
			s.drop(r, dropNoKey)
			return
		case errors.Is(err, errRefused):
			s.cfg.Log.Warn("webhook event refused", logReceiver, r.shown, logError, err)
			s.drop(r, dropRefused)
			return
		case s.ended():
			s.drop(r, dropStopped)
			return
		case time.Since(e.at) > s.cfg.Expire:
			s.drop(r, dropExpired)
			return
		}
		level := slog.LevelDebug
		if !r.failing.Swap(true) { // the first of them is worth knowing
			level = slog.LevelWarn
		}
		s.cfg.Log.Log(s.ctx, level, "webhook event not delivered; it is tried again", logReceiver, r.shown, logError, err)
		s.pause(wait/2 + rand.N(wait))
		wait = min(2*wait, maxBackoff)
	}
}

var (
	errRefused = errors.New("refused")
	errNoKey   = errors.New("no API key to sign with")
	errAnswer  = errors.New("the receiver answers")
)

// post is one try.
func (s *Sender) post(r *receiver, e Event) error {
	id, secret, ok := s.cfg.Sign()
	if !ok {
		return errNoKey
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(e.body))
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	timestamp, signature := Sign(secret, time.Now(), e.body)
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", userAgent)
	h.Set(HeaderID, e.id)
	h.Set(HeaderKey, id)
	h.Set(HeaderTimestamp, timestamp)
	h.Set(HeaderSignature, signature)
	resp, err := s.http.Do(req)
	if err != nil {
		if about := (*url.Error)(nil); errors.As(err, &about) {
			return about.Err // the rest is the URL, whose path may be secret
		}
		return err
	}
	// A connection whose answer was not read to its end is not used again: a long answer costs one, no more.
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	_ = resp.Body.Close()
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code >= 400 && code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooEarly && code != http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s", errRefused, resp.Status)
	}
	return fmt.Errorf("%w %s", errAnswer, resp.Status)
}

func (s *Sender) ended() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

// pause waits, less when the sender is closed.
func (s *Sender) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ending:
	}
}
