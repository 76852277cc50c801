package auth

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPasswordHashHasTheRecommendedCost(t *testing.T) {
	h := newHasher(standardCost)
	p, err := h.hash(t.Context(), "correct horse")
	must(t, err)
	if !strings.HasPrefix(p.String(), "$argon2id$v=19$m=65536,t=3,p=4$") {
		t.Errorf("got %s", p)
	}
	again, err := parsePasswordHash(p.String())
	must(t, err)
	if ok, err := h.matches(t.Context(), "correct horse", &again); !ok || err != nil {
		t.Errorf("matches: %v, %v", ok, err)
	}
}

// argon2Vector is the hash of "password" in the test suite of the argon2 reference implementation.
const argon2Vector = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"

func TestHashOfAnotherImplementationMatches(t *testing.T) {
	p, err := parsePasswordHash(argon2Vector)
	must(t, err)
	h := newHasher(cheap)
	for password, want := range map[string]bool{"password": true, "Password": false} {
		if ok, err := h.matches(t.Context(), password, &p); ok != want || err != nil {
			t.Errorf("%s: %v, %v", password, ok, err)
		}
	}
}

func TestUnknownUserCostsAsMuchAsAKnownOne(t *testing.T) {
	h := newHasher(standardCost)
	if h.dummy.cost != standardCost || len(h.dummy.salt) != saltBytes {
		t.Errorf("dummy is %+v", h.dummy)
	}
	for _, password := range []string{"", "12345678"} {
		if ok, err := newHasher(cheap).matches(t.Context(), password, nil); ok || err != nil {
			t.Errorf("%q matches nobody's password: %v, %v", password, ok, err)
		}
	}
}

func TestLoginsBeyondTheBoundAreBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHasher(cheap)
		must(t, h.acquire(t.Context()))
		must(t, h.acquire(t.Context()))
		begun := time.Now()
		_, err := h.hash(t.Context(), "12345678")
		wantError(t, err, ErrBusy)
		if waited := time.Since(begun); waited != hashWait {
			t.Errorf("waited %v, want %v", waited, hashWait)
		}

		// A full queue refuses at once.
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, hashesQueued)
		for range hashesQueued {
			go func() { left <- h.acquire(ctx) }()
		}
		synctest.Wait()
		begun = time.Now()
		wantError(t, h.acquire(t.Context()), ErrBusy)
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("waited %v in a full queue", waited)
		}
		cancel()
		for range hashesQueued {
			wantError(t, <-left, context.Canceled)
		}
		h.release()
		must(t, h.acquire(t.Context()))
	})
}

func FuzzPasswordHash(f *testing.F) {
	f.Add(argon2Vector)
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=8,t=1,p=1,x=2$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2i$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePasswordHash(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Errorf("%q reads as %q", s, p)
		}
		if p.cost.memory > maxMemory || p.cost.passes > maxPasses || p.cost.threads == 0 || p.cost.passes == 0 {
			t.Errorf("%q: cost %+v", s, p.cost)
		}
	})
}
