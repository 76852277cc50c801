package relay

import (
	"net/netip"
	"testing"
	"time"
	"unsafe"
)

// clockSet is a moment on a host whose clock was set in the meantime: the wall clock has moved, the monotonic one has not. The time
// package makes no such Time, so this writes to its wall field, which counts seconds from bit 30 on.
func clockSet(t *testing.T, now time.Time, by time.Duration) time.Time {
	t.Helper()
	moved := now
	*(*uint64)(unsafe.Pointer(&moved)) += uint64(by/time.Second) << 30
	if moved.Unix()-now.Unix() != int64(by/time.Second) || moved.Sub(now) != 0 {
		t.Fatalf("%v became %v", now, moved)
	}
	return moved
}

// TestClockThatIsSetChangesNothing: a small computer without a clock of its own hears the time from the network, sometimes during a
// call.
func TestClockThatIsSetChangesNothing(t *testing.T) {
	peer := netip.MustParseAddrPort("8.8.8.8:1")
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		before := time.Now()
		after := clockSet(t, before, by)
		var a allocation
		a.bind(0x4000, peer, true, before)
		if c, permitted := a.wayTo(peer, after); c == nil || !permitted || a.channelOf(0x4000, after) == nil {
			t.Errorf("set by %v: the channel has ended", by)
		}
		if late := after.Add(channelLifetime); a.permitted(peer.Addr(), late) || a.channelOf(0x4000, late) != nil {
			t.Errorf("set by %v: the channel does not end", by)
		}
		var b bucket
		if !b.take(time.Second, time.Second, before) || b.take(time.Second, time.Second, after) {
			t.Errorf("set by %v: the bucket was filled", by)
		}
		if !b.take(time.Second, time.Second, after.Add(time.Second)) {
			t.Errorf("set by %v: the bucket stays empty", by)
		}
	}
}
