package signal

import (
	"fmt"
	"testing"
	"time"
)

func orderSession(fresh bool) *session {
	h := &Hub{limits: Limits{}.withDefaults()}
	return &session{hub: h, proto: callbox1{}, peer: "me", fresh: fresh}
}

// at is message n of the sender's session sid, after prev.
func at(sid, n, prev uint64) *packet {
	return &packet{kind: pkSignal, from: "x", to: "me", sid: sid, n: n, prev: prev, data: fmt.Append(nil, sid*1000+n)}
}

func delivered(s *session) string {
	out := ""
	for _, f := range s.queue {
		out += string(f[len(`{"type":"signal","seq":1,"from":"x","data":`):len(f)-1]) + " "
	}
	return out
}

func TestASendersOrderIsRestored(t *testing.T) {
	type step struct {
		p    *packet
		want outcome
	}
	for _, test := range []struct {
		name  string
		fresh bool
		steps []step
		want  string
	}{
		{"in order", true, []step{{at(1, 1, 0), accepted}, {at(1, 5, 1), accepted}, {at(1, 6, 5), accepted}}, "1001 1005 1006 "},
		{"the second first", true, []step{{at(1, 2, 1), accepted}, {at(1, 1, 0), accepted}, {at(1, 3, 2), accepted}}, "1001 1002 1003 "},
		{"twice", true, []step{{at(1, 1, 0), accepted}, {at(1, 1, 0), stale}, {at(1, 2, 1), accepted}, {at(1, 1, 0), stale}}, "1001 1002 "},
		{"three the wrong way round", true, []step{{at(1, 3, 2), accepted}, {at(1, 2, 1), accepted}, {at(1, 3, 2), stale}, {at(1, 1, 0), accepted}}, "1001 1002 1003 "},
		{"not told what was before", false, []step{{at(1, 7, 6), accepted}, {at(1, 9, 7), accepted}, {at(1, 6, 5), stale}}, "1007 1009 "},
		{"one was taken back", true, []step{{at(1, 1, 0), accepted}, {at(1, 3, 1), accepted}}, "1001 1003 "},
		{"the sender began anew", true, []step{{at(1, 1, 0), accepted}, {at(2, 1, 0), accepted}, {at(1, 2, 1), stale}, {at(2, 2, 1), accepted}}, "1001 2001 2002 "},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := orderSession(test.fresh)
			for i, step := range test.steps {
				if got := s.deliver(step.p, time.Unix(0, 0)); got != step.want {
					t.Errorf("step %d: outcome %d, want %d", i, got, step.want)
				}
			}
			if got := delivered(s); got != test.want {
				t.Errorf("delivered %q, want %q", got, test.want)
			}
			if s.pending != 0 {
				t.Error("pending", s.pending)
			}
		})
	}
}

func TestAGapIsWaitedForButNotForEver(t *testing.T) {
	s := orderSession(true)
	now := time.Unix(100, 0)
	s.deliver(at(1, 1, 0), now)
	s.deliver(at(1, 3, 2), now)
	s.deliver(at(1, 4, 3), now)
	if s.overdueLocked(now.Add(s.hub.limits.GapTimeout - 1)) {
		t.Fatal("too early")
	}
	if !s.overdueLocked(now.Add(s.hub.limits.GapTimeout)) || delivered(s) != "1001 1003 1004 " {
		t.Fatal(delivered(s))
	}
	if s.deliver(at(1, 2, 1), now) != stale {
		t.Fatal("out of order")
	}
}

func TestWhatWaitsForAGapIsBounded(t *testing.T) {
	s := orderSession(true)
	got := map[outcome]int{}
	for n := range uint64(1000) {
		got[s.deliver(at(1, n+3, n+2), time.Unix(0, 0))]++
	}
	if got[accepted] != maxPending || got[full] != 1000-maxPending {
		t.Fatal(got)
	}
	s = orderSession(true)
	s.deliver(at(1, 1, 0), time.Unix(0, 0))
	got = map[outcome]int{}
	for n := range uint64(100) {
		p := at(1, n+3, n+2)
		p.data = make([]byte, s.hub.limits.FrameBytes)
		got[s.deliver(p, time.Unix(0, 0))]++
	}
	if fit := s.hub.limits.QueueBytes / s.hub.limits.FrameBytes; got[accepted] != fit || got[full] != 100-fit {
		t.Fatal(got)
	}
	s.deliver(at(2, 1, 0), time.Unix(0, 0)) // anew: nothing waits any more
	if s.pending != 0 || s.pendingBytes != 0 {
		t.Fatal(s.pending, s.pendingBytes)
	}
	for i := range 2 * maxSources {
		p := at(1, 1, 0)
		p.from = fmt.Sprint("sender", i)
		s.deliver(p, time.Unix(0, 0))
	}
	if len(s.sources) > maxSources+1 {
		t.Fatal(len(s.sources), "senders remembered")
	}
}

func TestATakenBackNumberIsNotWaitedFor(t *testing.T) {
	s := orderSession(true)
	n1, p1 := s.next("x")
	n2, p2 := s.next("x")
	s.unsent("x", n2, p2)
	if n3, p3 := s.next("x"); n1 != 1 || p1 != 0 || n3 != 3 || p3 != 1 {
		t.Fatal(n1, p1, n2, p2, n3, p3)
	}
}

// What comes back does so in the order it was sent in, the last of it last.
func TestAfterARunThatCameBackNobodyIsWaitedFor(t *testing.T) {
	type number struct{ n, prev uint64 }
	for name, back := range map[string][]int{
		"in order": {2, 3, 4, 5}, "the other way round": {5, 4, 3, 2}, "mixed": {3, 2, 5, 4}, "not the first": {3, 4, 5},
	} {
		t.Run(name, func(t *testing.T) {
			s := orderSession(true)
			var sent [6]number
			for i := 1; i < len(sent); i++ {
				sent[i].n, sent[i].prev = s.next("x")
				s.next("another")
			}
			want := sent[5].n
			for _, i := range back {
				s.unsent("x", sent[i].n, sent[i].prev)
				want = min(want, sent[i].prev)
			}
			if _, prev := s.next("x"); prev != want {
				t.Errorf("the next comes after %d, want %d", prev, want)
			}
			if len(s.unused) != 0 {
				t.Errorf("left: %v", s.unused)
			}
		})
	}
}
