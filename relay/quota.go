package relay

import (
	"errors"
	"sync"
	"time"
)

var (
	errOwnerQuota = errors.New("the owner has as many allocations as it may")
	errTotalQuota = errors.New("the server has as many allocations as it may")
)

// accounts counts what owners hold.
type accounts struct {
	quota Quota
	all   rate

	mu    sync.Mutex
	total int
	open  map[string]*account
	idle  []*account // of owners who hold nothing and have spent of their rate
}

// account is one owner's. It lives as long as the owner holds anything, and then until it is even: an owner does not get a new
// burst by making an allocation anew.
type account struct {
	name        string
	allocations int // guarded by accounts.mu; reservations count too
	rate        rate
	idle        bool // listed in accounts.idle; guarded by accounts.mu
}

func newAccounts(q Quota) *accounts {
	return &accounts{quota: q, all: rate{bits: q.TotalBitrate}, open: make(map[string]*account)}
}

// take opens n more allocations on the owner's account.
func (s *accounts) take(name string, n int, now time.Time) (*account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	a := s.open[name]
	held := 0
	if a != nil {
		held = a.allocations
	}
	if s.quota.Allocations > 0 && held+n > s.quota.Allocations {
		return nil, errOwnerQuota
	}
	if s.quota.Total > 0 && s.total+n > s.quota.Total {
		return nil, errTotalQuota
	}
	if a == nil {
		a = &account{name: name, rate: rate{bits: s.quota.UserBitrate}}
		s.open[name] = a
	}
	a.allocations += n
	s.total += n
	return a, nil
}

// give closes n allocations.
func (s *accounts) give(a *account, n int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total -= n
	if a.allocations -= n; a.allocations == 0 && !a.idle {
		a.idle = true
		s.idle = append(s.idle, a)
	}
	s.sweep(now)
}

// sweep closes accounts that nobody uses; the caller holds mu. An account is even within the time of a burst, so few wait.
func (s *accounts) sweep(now time.Time) {
	for len(s.idle) > 0 {
		a := s.idle[0]
		if a.allocations == 0 && a.rate.bucket.full.Load() > tick(now) {
			return
		}
		a.idle = false
		s.idle = s.idle[1:]
		if a.allocations == 0 {
			delete(s.open, a.name)
		}
	}
	s.idle = nil
}

// spend takes a packet's bytes from the owner and from all, and says which of them has none left.
func (s *accounts) spend(a *account, bytes int, now time.Time) (drop, bool) {
	if !a.rate.take(bytes, now) {
		return dropUserBitrate, false
	}
	if !s.all.take(bytes, now) {
		return dropTotalBitrate, false
	}
	return 0, true
}
