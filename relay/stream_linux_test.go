package relay

import "testing"

// TestBurstThatTheKernelTakes: a client is slow when the kernel has no room, not when one round brings more than may wait.
func TestBurstThatTheKernelTakes(t *testing.T) {
	s := newServer(t, nil)
	w := dial(t, s, "tcp")
	w.alive()
	st := s.streams.list()[0]
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
