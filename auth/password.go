package auth

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
)

// cost is what one hash costs.
type cost struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// standardCost is the second recommended option of RFC 9106, section 4: 64 MiB,
// for machines that cannot give 2 GiB to one login.
var standardCost = cost{memory: 64 << 10, passes: 3, threads: 4}

// Bounds of a stored hash that is worth computing: more is a damaged record,
// which must not cost memory or minutes.
const (
	maxMemory  = 1 << 20 // KiB
	maxPasses  = 64
	maxThreads = 64

	saltBytes = 16 // RFC 9106, section 3.1
	hashBytes = 32

	hashesAtOnce = 2               // bounds the memory of all logins together
	hashesQueued = 32              // bounds how many wait
	hashWait     = 5 * time.Second // how long one waits
)

// hasher computes password hashes, few at a time.
type hasher struct {
	cost   cost
	slots  chan struct{}
	queued atomic.Int32
	dummy  passwordHash // takes the place of the hash of a user who does not exist
}

func newHasher(c cost) *hasher {
	return &hasher{
		cost:  c,
		slots: make(chan struct{}, hashesAtOnce),
		dummy: passwordHash{cost: c, salt: random(saltBytes), hash: random(hashBytes)},
	}
}

// acquire waits for a slot: ErrBusy when it takes too long or too many wait.
func (h *hasher) acquire(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	defer h.queued.Add(-1)
	if h.queued.Add(1) > hashesQueued {
		return ErrBusy
	}
	timer := time.NewTimer(hashWait)
	defer timer.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return ErrBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hasher) release() { <-h.slots }

// hash makes the stored form of a password.
func (h *hasher) hash(ctx context.Context, password string) (passwordHash, error) {
	if err := h.acquire(ctx); err != nil {
		return passwordHash{}, err
	}
	defer h.release()
	p := passwordHash{cost: h.cost, salt: random(saltBytes)}
	p.hash = p.compute(password, hashBytes)
	return p, nil
}

// matches compares a password with a stored hash. Without a stored hash it
// takes as long and says no.
func (h *hasher) matches(ctx context.Context, password string, stored *passwordHash) (bool, error) {
	if err := h.acquire(ctx); err != nil {
		return false, err
	}
	defer h.release()
	if stored == nil {
		h.dummy.compute(password, hashBytes)
		return false, nil
	}
	return subtle.ConstantTimeCompare(stored.compute(password, len(stored.hash)), stored.hash) == 1, nil
}

// passwordHash is a salted argon2id hash with its cost.
type passwordHash struct {
	cost       cost
	salt, hash []byte
}

func (p passwordHash) compute(password string, n int) []byte {
	return argon2.IDKey([]byte(password), p.salt, p.cost.passes, p.cost.memory, p.cost.threads, uint32(n))
}

// String is the PHC string format: $argon2id$v=19$m=65536,t=3,p=4$salt$hash.
func (p passwordHash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.cost.memory, p.cost.passes, p.cost.threads,
		base64.RawStdEncoding.EncodeToString(p.salt), base64.RawStdEncoding.EncodeToString(p.hash))
}

var errHash = errors.New("password hash is not an argon2id hash in PHC form")

func parsePasswordHash(s string) (passwordHash, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return passwordHash{}, errHash
	}
	var p passwordHash
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.cost.memory, &p.cost.passes, &p.cost.threads); n != 3 || err != nil {
		return passwordHash{}, errHash
	}
	var errSalt, errSum error
	p.salt, errSalt = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	p.hash, errSum = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	switch {
	case errSalt != nil || errSum != nil, len(p.salt) < 8 || len(p.salt) > 64, len(p.hash) < 16 || len(p.hash) > 64:
		return passwordHash{}, errHash
	case p.cost.memory < 8*uint32(p.cost.threads) || p.cost.memory > maxMemory, p.cost.passes == 0 || p.cost.passes > maxPasses,
		p.cost.threads == 0 || p.cost.threads > maxThreads, p.String() != s:
		return passwordHash{}, errHash
	}
	return p, nil
}
