package relay

import (
	"testing"

	"github.com/pion/stun/v2"
)

// TestBurstThatTheKernelTakes: a client is slow when the kernel has no room, not when one round brings more than may wait.
func TestBurstThatTheKernelTakes(t *testing.T) {
	s := newServer(t, nil)
	w := dial(t, s, "tcp")
	// Nothing that is answered: the shard might still be at the answer.
	w.send(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication)).Raw)
	var st *stream
	eventually(t, "the shard reads", func() bool {
		for _, st = range s.streams.list() {
			return st.last.Load() != 0
		}
		return false
	})
	message := channelData(0x4000, random(8000))
	hand := s.works.get()
	n := 0
	for ; n*len(message) < maxPending+32<<10; n++ {
		st.send(hand, message)
	}
	s.works.put(hand)
	if lost := s.Stats().Drops["slow-client"]; lost != 0 {
		t.Fatalf("%d of %d messages were dropped", lost, n)
	}
	for range n {
		w.onChannel(0x4000)
	}
}
