package client

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/bus/memory"
	"callbox/bus/redis"
	"callbox/signal"

	"github.com/alicebob/miniredis/v2"
)

// exchange sends n numbers each way between two users while disturb is called again and again, and sees that each arrives
// once and in order.
func exchange(t *testing.T, a, b user, n int, disturb func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var wg sync.WaitGroup
	done := make(chan struct{})
	run := func(from, to user) {
		wg.Go(func() {
			for i := range n {
				if err := from.Signal(ctx, to.Self().ID, i); err != nil {
					t.Errorf("signal %d: %v", i, err)
					return
				}
			}
		})
		wg.Go(func() {
			for want := 0; want < n; {
				e, err := to.Next(ctx)
				if err != nil {
					t.Errorf("%d of %d signals, then: %v", want, n, err)
					return
				}
				switch e := e.(type) {
				case Signal:
					if got, _ := strconv.Atoi(string(e.Data)); got != want {
						t.Errorf("signal %s, want %d", e.Data, want)
						return
					}
					want++
				case Connected:
					if !e.Resumed {
						t.Errorf("the session was lost: %+v", e)
						return
					}
				case Undeliverable, PeerLeft, Joined, Refused:
					t.Errorf("unexpected: %#v", e)
					return
				}
			}
		})
	}
	run(a, b)
	run(b, a)
	go func() { wg.Wait(); close(done) }()
	for {
		pause := time.NewTimer(time.Duration(5+rand.IntN(40)) * time.Millisecond)
		select {
		case <-done:
			pause.Stop()
			return
		case <-pause.C:
			disturb()
		}
	}
}

func TestNothingIsMissedOrRepeatedOverBrokenConnections(t *testing.T) {
	n := newNode(t, signal.Limits{MessageRate: 1_000_000})
	a, b := pair(t, n.url("ada", ""), n.url("bob", ""), Options{}, Options{})
	cuts := 0
	exchange(t, a, b, 1500, func() {
		if cuts++; cuts%3 == 0 {
			a.Reconnect()
		} else {
			n.cut()
		}
	})
	if cuts < 2 {
		t.Errorf("the connections broke %d times only", cuts)
	}
}

func TestSessionThatIsLostIsBegunAnew(t *testing.T) {
	n := newNode(t, signal.Limits{ResumeWindow: 100 * time.Millisecond})
	a, b := pair(t, n.url("ada", ""), n.url("bob", ""), Options{}, Options{})
	was := a.Self().ID
	n.isolate(true)
	// What is sent now is kept for a session that will not be there any more; and whoever waits for an answer is told.
	a.signal(b.Self().ID, "for the session that is lost")
	failed := make(chan error, 1)
	go func() { _, _, err := a.Call(t.Context(), "bob", "tea"); failed <- err }()
	await[Disconnected](a)
	deadline := time.Now().Add(patience)
	for n.hub.Stats().Sessions > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the sessions are not given up")
		}
		<-time.After(5 * time.Millisecond)
	}
	// The question has to have been asked before there is a new session.
	for {
		a.mu.Lock()
		asked := len(a.pending) > 0
		a.mu.Unlock()
		if asked {
			break
		}
		<-time.After(time.Millisecond)
	}
	n.isolate(false)
	e := await[Connected](a)
	if e.Resumed || e.Changed != (e.Peer != was) {
		t.Errorf("connected: %+v", e)
	}
	if len(e.Unconfirmed) != 1 || e.Unconfirmed[0].To != b.who.Peer || string(e.Unconfirmed[0].Data) != `"for the session that is lost"` {
		t.Errorf("unconfirmed: %+v", e.Unconfirmed)
	}
	if err := <-failed; !errors.Is(err, ErrSessionLost) {
		t.Errorf("call: %v", err)
	}
	if j := await[Joined](a); j.Room != "tea" {
		t.Errorf("joined: %+v", j)
	}
	await[Joined](b)
	// Numbers begin anew and fit.
	a.signal(b.Self().ID, 1)
	if s := await[Signal](b); string(s.Data) != "1" {
		t.Errorf("signal: %s", s.Data)
	}
}

func TestRoomThatHasFilledMeanwhileIsLost(t *testing.T) {
	n := newNode(t, signal.Limits{PeersPerRoom: 1, ResumeWindow: 100 * time.Millisecond})
	a := dial(t, n.url("ada", ""), Options{Backoff: 300 * time.Millisecond})
	a.join("tea")
	n.cut()
	b := dial(t, n.url("bob", ""), Options{})
	for { // until the place is free
		if _, err := b.Join(t.Context(), "tea"); err == nil {
			break
		} else if !hasCode(err, CodeRoomFull) {
			t.Fatal(err)
		}
		<-time.After(5 * time.Millisecond)
	}
	if e := await[RoomLost](a); e.Room != "tea" || !hasCode(e.Err, CodeRoomFull) {
		t.Errorf("lost: %+v", e)
	}
}

// nodes starts a cluster over a Redis in the test.
func nodes(t *testing.T, n int) []*node {
	t.Helper()
	server := miniredis.RunT(t)
	var out []*node
	for i := range n {
		b, err := redis.Open(t.Context(), redis.Config{
			URL: "redis://" + server.Addr(), Name: "n" + strconv.Itoa(i+1), Secret: []byte("what the nodes of this test share"),
		})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, startNode(t, b, signal.Limits{MessageRate: 1_000_000}))
	}
	return out
}

func TestSessionMovesToAnotherNode(t *testing.T) {
	all := nodes(t, 2)
	others := func(user string) Options { return Options{Others: []string{all[1].url(user, "")}} }
	a, b := pair(t, all[0].url("ada", ""), all[1].url("bob", ""), others("ada"), Options{})
	// Each new connection is to the other node.
	exchange(t, a, b, 400, a.Reconnect)
}

func TestDrainSendsTheClientElsewhere(t *testing.T) {
	all := nodes(t, 2)
	a, b := pair(t, all[0].url("ada", ""), all[1].url("bob", ""), Options{Others: []string{all[1].url("ada", "")}}, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	drained := make(chan error, 1)
	go func() {
		deadline, cancel := context.WithTimeout(ctx, 3*time.Second) // the first third of it is the time that goaway names
		defer cancel()
		drained <- all[0].hub.Drain(deadline)
	}()
	exchange(t, a, b, 200, func() {})
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	all[0].stop()
	exchange(t, a, b, 50, func() {})
}

func TestSlowProgramLosesNothingThatWasNotReturned(t *testing.T) {
	n := newNode(t, signal.Limits{QueueBytes: 32 << 10, MessageRate: 1_000_000, MessageBytes: 1 << 30})
	slow, fast := pair(t, n.url("slow", ""), n.url("fast", ""), Options{MaxQueue: 64 << 10}, Options{})
	// Nobody takes what comes until the server has had enough of it.
	data := strings.Repeat("x", 500)
	const most = 2000
	to := slow.Self().ID
	for i := range most {
		fast.signal(to, map[string]any{"n": i, "pad": data})
	}
	counted := 0
	for counted == 0 || n.hub.Stats().Closed[4003] == 0 {
		u := await[Undeliverable](fast)
		if u.Reason != ReasonBusy {
			t.Fatalf("undeliverable: %+v", u)
		}
		counted++
	}
	fast.signal(to, map[string]any{"n": most})
	// Each one has arrived or come back.
	var got []int
	for deadline := time.Now().Add(patience); len(got)+counted < most+1; {
		if time.Now().After(deadline) {
			t.Fatalf("%d arrived and %d came back of %d", len(got), counted, most+1)
		}
		for _, e := range append(slow.soon(), fast.soon()...) {
			switch e := e.(type) {
			case Signal:
				var v struct{ N int }
				if err := json.Unmarshal(e.Data, &v); err != nil {
					t.Fatal(err)
				}
				got = append(got, v.N)
			case Undeliverable:
				counted++
			case Connected:
				if !e.Resumed {
					t.Fatalf("the session is lost: %+v", e)
				}
			case PeerLeft:
				t.Fatalf("unexpected: %+v", e)
			}
		}
	}
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Fatalf("%d follows %d", got[i], got[i-1])
		}
	}
	if len(got) == 0 {
		t.Error("nothing arrived")
	}
}

// soon are the events until there is none for a moment.
func (u user) soon() (all []Event) {
	for {
		ctx, cancel := context.WithTimeout(u.t.Context(), 20*time.Millisecond)
		e, err := u.Next(ctx)
		cancel()
		if err != nil {
			return all
		}
		all = append(all, e)
	}
}

func TestReplacedClientStaysAway(t *testing.T) {
	n := newNode(t, signal.Limits{})
	a := dial(t, n.url("ada", ""), Options{})
	a.mu.Lock()
	token := a.resume
	a.mu.Unlock()
	// Somebody with the same secret: a copy of the program's state, say.
	thief := &Client{urls: a.urls, http: a.http, o: a.o, queue: queue{}, space: make(chan struct{}), pending: map[string]answer{}}
	thief.queue.init()
	thief.resume, thief.handled = token, 1
	conn, err := thief.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if err := a.ends(); !errors.Is(err, ErrReplaced) {
		t.Errorf("the first client ends with %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func TestRevokedClientEnds(t *testing.T) {
	n := newNode(t, signal.Limits{})
	a := dial(t, n.url("ada", ""), Options{})
	if got := n.hub.Revoke(func(id signal.Identity) bool { return id.User == "ada" }); got != 1 {
		t.Fatalf("%d revoked", got)
	}
	if err := a.ends(); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("ends with %v", err)
	}
}

func TestFreshTokenBeginsAnotherSession(t *testing.T) {
	n := newNode(t, signal.Limits{})
	var mu sync.Mutex
	asked := 0
	a := dial(t, n.url("ada", ""), Options{TokenSource: func(context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return "token" + strconv.Itoa(asked), nil
	}})
	a.join("tea")
	n.hub.Revoke(func(signal.Identity) bool { return true })
	if e := await[Connected](a); e.Resumed {
		t.Errorf("connected: %+v", e)
	}
	await[Joined](a)
	mu.Lock()
	defer mu.Unlock()
	if asked < 2 {
		t.Errorf("the token was asked for %d times", asked)
	}
}

func TestDeadNodesClientComesBackOnAnother(t *testing.T) {
	net := memory.NewNetwork()
	var all []*node
	for _, name := range []string{"n1", "n2"} {
		b, err := net.Open(memory.Config{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, startNode(t, b, signal.Limits{}))
	}
	a, b := pair(t, all[0].url("ada", ""), all[1].url("bob", ""), Options{Others: []string{all[1].url("ada", "")}}, Options{})
	was := a.Self()
	net.Kill(all[0].bus.Self())
	all[0].isolate(true)
	if e := await[Connected](a); e.Resumed || e.Changed || e.Peer != was.ID {
		t.Errorf("connected: %+v", e)
	}
	if j := await[Joined](a); len(j.Peers) != 2 {
		t.Errorf("joined: %+v", j)
	}
	a.signal(b.Self().ID, 7)
	for {
		switch e := b.next().(type) {
		case Signal:
			if string(e.Data) != "7" {
				t.Errorf("signal: %s", e.Data)
			}
			return
		case PeerLeft:
			t.Fatalf("the other was told: %+v", e)
		}
	}
}
