package signal

import (
	"testing"
	"time"
)

func TestACallRingsEveryConnectionAndTheFirstToAcceptHasIt(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	ada := connect(t, c.nodes[0], "user=ada&login=1")
	bob1 := connect(t, c.nodes[1], "user=bob&login=1&name=Bob")
	bob2 := connect(t, c.nodes[2], "user=bob&login=1")
	guest := connect(t, c.nodes[1], "user=bob") // of a room token: not callable
	ada.send(`{"type":"call","user":"bob","room":"tea","id":"c"}`)
	calling := ada.expect("calling")
	if calling.ID != "c" || calling.User != "bob" || calling.Room != "tea" || calling.Call == "" {
		t.Fatalf("%s", calling.raw)
	}
	if _, err := time.Parse(time.RFC3339, calling.ExpiresAt); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*client{bob1, bob2} {
		if m := b.expect("ring"); m.Call != calling.Call || m.from() != ada.peer || m.Room != "tea" {
			t.Fatalf("%s", m.raw)
		}
	}
	guest.quiet()
	bob1.send(`{"type":"accept","call":"` + calling.Call + `","id":"y"}`)
	if m := ada.expect("accepted"); m.By != (personJSON{bob1.peer, "bob", "Bob"}) || m.Room != "tea" || m.Call != calling.Call {
		t.Fatalf("%s", m.raw)
	}
	if m := bob1.expect("accepted"); m.ID != "y" || m.By.Peer != bob1.peer {
		t.Fatalf("%s", m.raw)
	}
	if m := bob2.expect("ring-ended"); m.Reason != "answered" || m.Call != calling.Call {
		t.Fatalf("%s", m.raw)
	}
	bob2.send(`{"type":"accept","call":"` + calling.Call + `","id":"z"}`)
	if m := bob2.expect("error"); m.Code != "no-such-call" || m.ID != "z" {
		t.Fatalf("%s", m.raw)
	}
	bob1.quiet()
	ada.quiet()
}

func TestACallCanBeDeclinedCancelledAndEndsWithItsTimeOrItsCaller(t *testing.T) {
	c := newCluster(t, 2, Limits{RingTimeout: 600 * time.Millisecond, GapTimeout: 200 * time.Millisecond})
	bob1 := connect(t, c.nodes[0], "user=bob&login=1")
	bob2 := connect(t, c.nodes[1], "user=bob&login=1")
	both := func(typ, reason string) {
		t.Helper()
		for _, b := range []*client{bob1, bob2} {
			if m := b.expect(typ); m.Reason != reason {
				t.Fatalf("%s", m.raw)
			}
		}
	}
	ada := connect(t, c.nodes[0], "user=ada")
	ring := func() string {
		t.Helper()
		ada.send(`{"type":"call","user":"bob","room":"tea"}`)
		call := ada.expect("calling").Call
		both("ring", "")
		return call
	}
	bob2.send(`{"type":"decline","call":"` + ring() + `"}`)
	if m := ada.expect("declined"); m.Reason != "declined" || m.By.Peer != bob2.peer {
		t.Fatalf("%s", m.raw)
	}
	both("ring-ended", "declined")

	ada.send(`{"type":"cancel","call":"` + ring() + `","id":"n"}`)
	if m := ada.expect("ring-ended"); m.Reason != "cancelled" || m.ID != "n" {
		t.Fatalf("%s", m.raw)
	}
	both("ring-ended", "cancelled")

	ring()
	if m := ada.expect("declined"); m.Reason != "timeout" {
		t.Fatalf("%s", m.raw)
	}
	both("ring-ended", "timeout")

	ring()
	ada.send(`{"type":"bye"}`)
	both("ring-ended", "cancelled")
}

func TestOfflineAndUnknownUsersCannotBeToldApart(t *testing.T) {
	c := newCluster(t, 2, Limits{})
	was := connect(t, c.nodes[1], "user=was&login=1")
	was.send(`{"type":"bye"}`)
	was.closed()
	a := connect(t, c.nodes[0], "user=a")
	ask := func(user string) string {
		a.send(`{"type":"call","user":"` + user + `","room":"r"}`)
		m := a.next()
		m.Seq = 0
		return m.Type + m.Code + m.Field + m.Message
	}
	eventually(t, "the offline user is like an unknown one", func() bool { return ask("was") == ask("never") })
}

func TestCallsSurviveTheMoveOfBothSides(t *testing.T) {
	c := newCluster(t, 3, Limits{})
	ada := connect(t, c.nodes[0], "user=ada")
	bob := connect(t, c.nodes[1], "user=bob&login=1")
	ada.send(`{"type":"call","user":"bob","room":"tea"}`)
	call := ada.expect("calling").Call
	bob.expect("ring")
	ada.quiet()
	bob.quiet()
	ada = ada.resume(c.nodes[2], "user=ada")
	bob = bob.resume(c.nodes[0], "user=bob&login=1")
	if !ada.hello.Resumed || !bob.hello.Resumed {
		t.Fatalf("%s %s", ada.hello.raw, bob.hello.raw)
	}
	bob.send(`{"type":"accept","call":"` + call + `","id":"y"}`)
	if m := ada.expect("accepted"); m.By.Peer != bob.peer {
		t.Fatalf("%s", m.raw)
	}
	if m := bob.expect("accepted"); m.ID != "y" {
		t.Fatalf("%s", m.raw)
	}
}

func TestTooManyCallsAreRefused(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	ada := connect(t, c.nodes[0], "user=ada")
	bob := connect(t, c.nodes[0], "user=bob&login=1")
	for i := range ringsPerPeer {
		ada.send(`{"type":"call","user":"bob","room":"tea"}`)
		ada.expect("calling")
		if i < ringsPerCaller { // nobody keeps the line busy alone
			bob.expect("ring")
		}
	}
	ada.send(`{"type":"call","user":"bob","room":"tea"}`)
	if m := ada.expect("error"); m.Code != "too-many-calls" {
		t.Fatalf("%s", m.raw)
	}
	for _, user := range []string{"cid", "dan", "eli"} {
		other := connect(t, c.nodes[0], "user="+user)
		for range ringsPerCaller {
			other.send(`{"type":"call","user":"bob","room":"tea"}`)
			other.expect("calling")
			bob.expect("ring")
		}
	}
	eve := connect(t, c.nodes[0], "user=eve")
	eve.send(`{"type":"call","user":"bob","room":"tea"}`)
	eve.expect("calling")
	bob.quiet() // as many as it can take
}
