package certs

import (
	"testing"

	"go.uber.org/goleak"

	"callbox/internal/testkit"
)

func TestMain(m *testing.M) {
	// certmagic keeps one goroutine for each authority, which spaces orders out; it has no end.
	testkit.Main(m, goleak.IgnoreTopFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		goleak.IgnoreTopFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).permit"))
}
