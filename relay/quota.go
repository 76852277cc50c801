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
}

// account is one owner's. It lives as long as the owner holds anything.
type account struct {
	name        string
	allocations int // guarded by accounts.mu; reservations count too
	rate        rate
}

func newAccounts(q Quota) *accounts {
	return &accounts{quota: q, all: rate{bits: q.TotalBitrate}, open: make(map[string]*account)}
}

// take opens n more allocations on the owner's account.
func (s *accounts) take(name string, n int) (*account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
func (s *accounts) give(a *account, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total -= n
	if a.allocations -= n; a.allocations == 0 {
		delete(s.open, a.name)
	}
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
