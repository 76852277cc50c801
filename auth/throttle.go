package auth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// policy is how fast one kind of subject may fail.
type policy struct {
	kind string        // begins the keys of shared records
	free int           // failures without a delay
	most time.Duration // longest delay; after the free ones it starts at a second and doubles
}

// A user's delay is short at most: who keeps failing on purpose must not lock
// the owner of the name out. An address may have many people behind it, and is
// given more failures, then longer delays.
var (
	userPolicy    = policy{kind: "user", free: 5, most: time.Minute}
	addressPolicy = policy{kind: "address", free: 20, most: 15 * time.Minute}
)

const (
	forgetAfter   = time.Hour // failures are forgotten that long after the last
	throttleSize  = 8192      // subjects of one kind remembered by this process
	throttleSlots = 32        // shared records of one kind
	slotSize      = 64        // subjects in one shared record
)

// Throttle slows down who fails to log in, by user and by address. Its memory
// is bounded. Failures past the free ones are shared with other nodes.
type Throttle struct {
	store  Store
	shared *cache[slot]

	mu        sync.Mutex // guards the following; not held across calls of the store
	users     ledger
	addresses ledger
}

// failures is what is remembered of one subject.
type failures struct {
	Count int       `json:"n"`
	Last  time.Time `json:"last"`
}

// slot is a shared record: some subjects by the hash of their name. The number
// of slots is fixed, so that nobody can make the store grow.
type slot map[string]failures

func decodeSlot(_ string, text []byte) (slot, error) {
	var s slot
	err := json.Unmarshal(text, &s)
	return s, err
}

// OpenThrottle reads from the store what other nodes have seen.
func OpenThrottle(ctx context.Context, store Store) (*Throttle, error) {
	t := &Throttle{
		store: store, shared: newCache(store, BucketThrottle, decodeSlot),
		users: newLedger(throttleSize), addresses: newLedger(throttleSize),
	}
	if err := t.Reload(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload reads all shared failures anew.
func (t *Throttle) Reload(ctx context.Context) error { return t.shared.reloadAll(ctx) }

// Changed reads some shared failures anew, after news of a change of their record.
func (t *Throttle) Changed(ctx context.Context, key string) error { return t.shared.reload(ctx, key) }

// Allow says whether a login may be tried now, or how long to wait. Where it
// may, it counts as failed until Succeeded or Withdraw says otherwise: tries
// made at the same time must not all pass before the first has failed.
func (t *Throttle) Allow(addr netip.Addr, user string, now time.Time) (retryAfter time.Duration, ok bool) {
	byUser, byAddress := userSubject(user), addressSubject(addr)
	sharedUser, sharedAddress := t.sharedFailures(userPolicy, byUser), t.sharedFailures(addressPolicy, byAddress)
	t.mu.Lock()
	defer t.mu.Unlock()
	u := worse(t.users.get(byUser), sharedUser, now)
	a := worse(t.addresses.get(byAddress), sharedAddress, now)
	wait := max(userPolicy.until(u).Sub(now), addressPolicy.until(a).Sub(now))
	if wait > 0 {
		return wait, false
	}
	t.users.put(byUser, failures{Count: u.Count + 1, Last: now})
	t.addresses.put(byAddress, failures{Count: a.Count + 1, Last: now})
	return 0, true
}

// Failed tells other nodes of a try that Allow admitted and that failed, where
// it is past the free ones.
func (t *Throttle) Failed(ctx context.Context, addr netip.Addr, user string, now time.Time) error {
	byUser, byAddress := userSubject(user), addressSubject(addr)
	t.mu.Lock()
	u, a := t.users.get(byUser), t.addresses.get(byAddress)
	t.mu.Unlock()
	if err := t.share(ctx, userPolicy, byUser, u, now); err != nil {
		return err
	}
	return t.share(ctx, addressPolicy, byAddress, a, now)
}

// Succeeded forgets the failures of a user. Those of the address stay, but for
// this try: who has one account must not get unlimited tries at others by it.
func (t *Throttle) Succeeded(ctx context.Context, addr netip.Addr, user string) error {
	byUser, byAddress := userSubject(user), addressSubject(addr)
	t.mu.Lock()
	t.users.remove(byUser)
	t.addresses.put(byAddress, t.addresses.get(byAddress).less())
	t.mu.Unlock()
	key := slotKey(userPolicy, byUser)
	if s, ok := t.shared.get(key); !ok || s[byUser].Count == 0 {
		return nil
	}
	return t.update(ctx, key, func(s slot) { delete(s, byUser) })
}

// Withdraw takes back a try that Allow admitted and that was not decided.
func (t *Throttle) Withdraw(addr netip.Addr, user string) {
	byUser, byAddress := userSubject(user), addressSubject(addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users.put(byUser, t.users.get(byUser).less())
	t.addresses.put(byAddress, t.addresses.get(byAddress).less())
}

func (t *Throttle) sharedFailures(p policy, subject string) failures {
	s, _ := t.shared.get(slotKey(p, subject))
	return s[subject]
}

// share records a failure for all nodes. Each of two nodes that see one at the
// same time adds its own.
func (t *Throttle) share(ctx context.Context, p policy, subject string, local failures, now time.Time) error {
	if local.Count <= p.free {
		return nil
	}
	return t.update(ctx, slotKey(p, subject), func(s slot) {
		for other, f := range s {
			if now.Sub(f.Last) > forgetAfter {
				delete(s, other)
			}
		}
		before, there := s[subject]
		if !there && len(s) >= slotSize {
			delete(s, s.oldest())
		}
		s[subject] = failures{Count: max(before.Count+1, local.Count), Last: now.UTC().Truncate(time.Millisecond)}
	})
}

func (t *Throttle) update(ctx context.Context, key string, change func(slot)) error {
	err := t.store.Update(ctx, BucketThrottle, key, func(old []byte) ([]byte, time.Duration, error) {
		s := slot{}
		if old != nil {
			// A damaged record of failures is worth nothing: begin anew.
			if read, err := decodeSlot(key, old); err == nil && read != nil {
				s = read
			}
		}
		change(s)
		if len(s) == 0 {
			return nil, 0, nil
		}
		text, err := json.Marshal(s)
		return text, forgetAfter, err
	})
	if err != nil {
		return fmt.Errorf("login throttle: %w", err)
	}
	return t.shared.reload(ctx, key)
}

func (s slot) oldest() string {
	var name string
	var last time.Time
	for subject, f := range s {
		if name == "" || f.Last.Before(last) {
			name, last = subject, f.Last
		}
	}
	return name
}

// until is when the next try may be made.
func (p policy) until(f failures) time.Time {
	over := f.Count - p.free
	if over <= 0 || f.Last.IsZero() {
		return time.Time{}
	}
	delay := p.most
	if over < 20 {
		delay = min(delay, time.Second<<(over-1))
	}
	return f.Last.Add(delay)
}

// worse merges what this process and the others know, where it still counts.
func worse(local, shared failures, now time.Time) failures {
	var out failures
	for _, f := range []failures{local, shared} {
		if now.Sub(f.Last) <= forgetAfter {
			out.Count = max(out.Count, f.Count)
			if f.Last.After(out.Last) {
				out.Last = f.Last
			}
		}
	}
	return out
}

func (f failures) less() failures { return failures{Count: max(0, f.Count-1), Last: f.Last} }

// userSubject and addressSubject are hashes, so that records tell nobody who
// mistyped what, and what a stranger sends as a name has a fixed length.
func userSubject(user string) string { return subjectHash("user " + foldName(user)) }

// addressSubject takes an IPv6 address by its /56, which is what one customer has.
func addressSubject(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(56); err == nil {
			addr = p.Addr()
		}
	}
	return subjectHash("address " + addr.String())
}

func subjectHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return encode(sum[:12])
}

func slotKey(p policy, subject string) string {
	sum := sha256.Sum256([]byte(subject))
	return p.kind + "-" + strconv.Itoa(int(sum[0])%throttleSlots)
}
