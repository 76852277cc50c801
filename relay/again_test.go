package relay

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"

	"github.com/pion/stun/v2"
)

// Requests that come more than once.

func TestSameTransactionGetsSameAnswer(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		m := w.signed(stun.MethodAllocate, transportUDP)
		first, second := w.ask(m), w.ask(m)
		if !bytes.Equal(first.Raw, second.Raw) {
			t.Fatalf("%v, then %v", first, second)
		}
	})
}

// TestSameRequestAgainGetsSameAnswer: a client over UDP sends again what was not answered (RFC 8656 section 5).
func TestSameRequestAgainGetsSameAnswer(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		w.allocate()
		for _, m := range []*stun.Message{
			w.bare(stun.MethodBinding),
			w.signed(stun.MethodRefresh, lifetime(700)),
			w.signed(stun.MethodCreatePermission, peer("8.8.8.8:1")),
			w.signed(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.8.8:1")),
			w.signed(stun.MethodChannelBind, channelNumber(0x4001), peer("8.8.8.8:1")), // 400
			w.signed(stun.MethodCreatePermission, peer("10.0.0.1:1")),                  // 403
			w.signed(stun.MethodAllocate, transportUDP),                                // 437
		} {
			if first, second := w.ask(m), w.ask(m); !bytes.Equal(first.Raw, second.Raw) {
				t.Errorf("%v, then %v", first, second)
			}
		}
	})
}

// TestAllocateMeetsItself: when the shards are gathered or spread, two requests of one five-tuple can be in two hands at once.
func TestAllocateMeetsItself(t *testing.T) {
	s := newServer(t, nil)
	for range 20 {
		w := dial(t, s, "udp")
		m := w.signed(stun.MethodAllocate, transportUDP)
		c := client{transport: UDP, remote: netip.MustParseAddrPort(w.conn.LocalAddr().String()), local: s.Addr(), conn: s.listeners[0]}
		var both sync.WaitGroup
		for range 2 {
			raw := bytes.Clone(m.Raw)
			both.Go(func() {
				hand := s.works.get()
				s.gate(hand, &c, raw)
				s.works.put(hand)
			})
		}
		both.Wait()
		first, second := w.message(), w.message()
		if first.Type.Class != stun.ClassSuccessResponse || !bytes.Equal(first.Raw, second.Raw) {
			t.Fatalf("%v, then %v", first, second)
		}
		w.succeed(stun.MethodRefresh, lifetime(0))
		if left := s.Allocations(); len(left) != 0 {
			t.Fatalf("%d allocations are left", len(left))
		}
	}
}

func TestSameTransactionOfAnotherUserIsRefused(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		first := w.signed(stun.MethodAllocate, transportUDP)
		if m := w.ask(first); m.Type.Class != stun.ClassSuccessResponse {
			t.Fatal(m)
		}
		w.as("1:mallory")
		again := w.bare(stun.MethodAllocate, transportUDP)
		again.TransactionID = first.TransactionID
		again.WriteTransactionID()
		for _, a := range []stun.Setter{stun.NewUsername(w.username), stun.NewRealm(w.realm), stun.NewNonce(w.nonce), w.key()} {
			if err := a.AddTo(again); err != nil {
				t.Fatal(err)
			}
		}
		w.code(w.ask(again), 437)
	})
}
