package client

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"callbox/signal"
)

func TestPeersMeetAndTalk(t *testing.T) {
	n := newNode(t, signal.Limits{})
	ada := dial(t, n.url("ada", ""), Options{Name: "Ada L."})
	if j := ada.join("tea"); j.Room != "tea" || j.You != ada.Self().ID || len(j.Peers) != 1 || j.Peers[0] != (Peer{ada.Self().ID, "ada", "Ada L."}) {
		t.Errorf("joined: %+v", j)
	}
	bob := dial(t, n.url("bob", ""), Options{})
	j := bob.join("tea")
	if !slices.Contains(j.Peers, ada.Self()) || len(j.Peers) != 2 {
		t.Errorf("joined: %+v", j)
	}
	if e := await[PeerJoined](ada); e.Room != "tea" || e.Peer != bob.Self() {
		t.Errorf("peer joined: %+v", e)
	}
	// As it was sent, byte for byte.
	data := json.RawMessage("{ \"sdp\":\"v=0\\r\\n<é>\",\t\"n\": 1.50 }")
	ada.signal(bob.Self().ID, data)
	if e := await[Signal](bob); e.From != ada.Self().ID || string(e.Data) != string(data) {
		t.Errorf("signal: %+v, data %s", e, e.Data)
	}
	if err := bob.Broadcast(t.Context(), "tea", map[string]int{"n": 2}); err != nil {
		t.Fatal(err)
	}
	if e := await[Broadcast](ada); e.From != bob.Self().ID || e.Room != "tea" || string(e.Data) != `{"n":2}` {
		t.Errorf("broadcast: %+v", e)
	}
	if err := bob.Leave(t.Context(), "tea"); err != nil {
		t.Fatal(err)
	}
	if e := await[PeerLeft](ada); e.Peer != bob.Self().ID || e.Reason != ReasonLeft {
		t.Errorf("left: %+v", e)
	}
	ada.signal(bob.Self().ID, 1)
	if e := await[Undeliverable](ada); e != (Undeliverable{bob.Self().ID, ReasonNotInRoom}) {
		t.Errorf("undeliverable: %+v", e)
	}
	ada.signal("nobody", 1)
	if e := await[Undeliverable](ada); e.To != "nobody" {
		t.Errorf("undeliverable: %+v", e)
	}
	if err := bob.Leave(t.Context(), "tea"); !hasCode(err, CodeNotInRoom) {
		t.Errorf("left twice: %v", err)
	}
	bob.join("tea")
	if err := bob.Close(); err != nil {
		t.Error(err)
	}
	if e := await[PeerLeft](ada); e.Reason != ReasonLeft {
		t.Errorf("after Close: %+v", e)
	}
	if err := bob.ends(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	for name, err := range map[string]error{
		"signal": bob.Signal(t.Context(), "x", 1), "leave": bob.Leave(t.Context(), "tea"),
		"join": func() error { _, err := bob.Join(t.Context(), "tea"); return err }(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

func TestWhatTheServerRefusesIsAnError(t *testing.T) {
	n := newNode(t, signal.Limits{PeersPerRoom: 1, RoomsPerPeer: 2, FrameBytes: 4096})
	a, b := dial(t, n.url("ada", ""), Options{}), dial(t, n.url("bob", "&room=tea"), Options{})
	a.join("tea")
	if _, err := b.Join(t.Context(), "tea"); !hasCode(err, CodeRoomFull) {
		t.Errorf("full room: %v", err)
	}
	if _, err := b.Join(t.Context(), "other"); !hasCode(err, CodeNotAllowed) {
		t.Errorf("another room: %v", err)
	}
	a.join("two")
	if _, err := a.Join(t.Context(), "three"); !hasCode(err, CodeTooManyRooms) {
		t.Errorf("third room: %v", err)
	}
	if _, err := a.ICEServers(t.Context(), ""); !hasCode(err, CodeUnavailable) {
		t.Errorf("ICE servers: %v", err)
	}
	if _, _, err := a.Call(t.Context(), "nobody", "tea"); !hasCode(err, CodeUnavailable) {
		t.Errorf("call: %v", err)
	}
	if err := a.Signal(t.Context(), "x", make(chan int)); !errors.Is(err, ErrData) {
		t.Errorf("no JSON: %v", err)
	}
	if err := a.Signal(t.Context(), "x", json.RawMessage(`{"a":`)); !errors.Is(err, ErrData) {
		t.Errorf("half of a JSON: %v", err)
	}
	if err := a.Signal(t.Context(), "x", string(make([]byte, 4096))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := a.Broadcast(t.Context(), "elsewhere", 1); err != nil {
		t.Error(err)
	}
	if e := await[Refused](a); e.Err.Code != CodeNotInRoom {
		t.Errorf("broadcast: %+v", e)
	}
	// The client is none the worse.
	if j := a.join("two"); j.Room != "two" {
		t.Errorf("joined: %+v", j)
	}
	if _, err := Dial(t.Context(), n.url("", ""), Options{}); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("nobody: %v", err)
	}
	for _, address := range []string{"", "calls.example.org", "ftp://calls.example.org", "http://"} {
		if _, err := Dial(t.Context(), address, Options{}); err == nil {
			t.Errorf("address %q passes", address)
		}
	}
}

func TestCallsRing(t *testing.T) {
	n := newNode(t, signal.Limits{})
	ada, bob := dial(t, n.url("ada", "&login=1"), Options{}), dial(t, n.url("bob", "&login=1"), Options{})
	ring := func() (string, Ring) {
		t.Helper()
		call, expires, err := ada.Call(t.Context(), "bob", "tea")
		if err != nil || time.Until(expires) < time.Second {
			t.Fatalf("call: %v, until %v", err, expires)
		}
		r := await[Ring](bob)
		if r.Call != call || r.From != ada.Self() || r.Room != "tea" {
			t.Errorf("ring: %+v", r)
		}
		return call, r
	}
	call, r := ring()
	if room, err := bob.Accept(t.Context(), r.Call); err != nil || room != "tea" {
		t.Errorf("accept: %q, %v", room, err)
	}
	if e := await[Accepted](ada); e != (Accepted{call, bob.Self(), "tea"}) {
		t.Errorf("accepted: %+v", e)
	}
	call, r = ring()
	if err := bob.Decline(t.Context(), r.Call); err != nil {
		t.Error(err)
	}
	if e := await[Declined](ada); e != (Declined{call, ReasonDeclined, bob.Self()}) {
		t.Errorf("declined: %+v", e)
	}
	call, _ = ring()
	if err := ada.Cancel(t.Context(), call); err != nil {
		t.Error(err)
	}
	if e := await[RingEnded](bob); e != (RingEnded{call, ReasonCancelled}) {
		t.Errorf("ended: %+v", e)
	}
	if _, err := bob.Accept(t.Context(), call); !hasCode(err, CodeNoSuchCall) {
		t.Errorf("accepted late: %v", err)
	}
}

func TestICEServersStayFresh(t *testing.T) {
	n := newNode(t, signal.Limits{})
	a := dial(t, n.url("ada", "&room=tea&ice=2"), Options{RenewICE: true})
	a.join("tea")
	for range 3 {
		e := await[Renewed](a)
		if e.Room != "tea" || len(e.ICE.Servers) != 1 || e.ICE.Servers[0].URLs[0] != "turn:192.0.2.1:8080?room=tea" || e.ICE.Servers[0].Credential != "c" {
			t.Fatalf("renewed: %+v", e)
		}
	}
	if ice, err := a.ICEServers(t.Context(), "tea"); err != nil || len(ice.Servers) != 1 || ice.ExpiresAt.IsZero() {
		t.Errorf("asked: %+v, %v", ice, err)
	}
	// Without rooms those of the welcome count.
	b := dial(t, n.url("bob", "&ice=3600"), Options{RenewICE: true})
	if e := await[Renewed](b); e.Room != "" || len(e.ICE.Servers) != 1 {
		t.Errorf("renewed: %+v", e)
	}
	// A server whose addresses change says so by itself.
	n.hub.RenewICE()
	if e := await[Renewed](b); e.Room != "" || len(e.ICE.Servers) != 1 {
		t.Errorf("unasked: %+v", e)
	}
}

func TestContextEndsWaiting(t *testing.T) {
	n := newNode(t, signal.Limits{})
	a, b := pair(t, n.url("ada", ""), n.url("bob", ""), Options{}, Options{})
	n.isolate(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Join(ctx, "other"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("join: %v", err)
	}
	if _, err := a.ICEServers(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ICE servers: %v", err)
	}
	// As much as may be unconfirmed is taken without a connection, and no more.
	var err error
	sent := 0
	for err == nil {
		if err = a.Signal(ctx, b.Self().ID, sent); err == nil {
			sent++
		}
		if sent > 2*maxOutbox {
			t.Fatal("the outbox has no bound")
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) || sent < maxOutbox-8 {
		t.Errorf("%d signals, then: %v", sent, err)
	}
	// Nothing of it is lost.
	n.isolate(false)
	for i := range sent {
		if e := await[Signal](b); string(e.Data) != marshal(i) {
			t.Fatalf("signal %s, want %d", e.Data, i)
		}
	}
	// The room that was given up is not entered.
	a.join("third")
	if _, ok := a.rooms["other"]; ok {
		t.Error("a join that was given up is still wanted")
	}
}

func marshal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestAddressBecomesEndpointAndOrigin(t *testing.T) {
	for address, want := range map[string][2]string{
		"https://calls.example.org":           {"wss://calls.example.org/ws", "https://calls.example.org"},
		"https://calls.example.org:443/":      {"wss://calls.example.org:443/ws", "https://calls.example.org"},
		"ws://127.0.0.1:8080/other/ws?x=1":    {"ws://127.0.0.1:8080/other/ws?x=1", "http://127.0.0.1:8080"},
		"http://[2001:db8::1]:80":             {"ws://[2001:db8::1]:80/ws", "http://[2001:db8::1]"},
		"wss://calls.example.org:8443/signal": {"wss://calls.example.org:8443/signal", "https://calls.example.org:8443"},
	} {
		got, err := endpoint(address)
		if err != nil || got != want[0] || origin(got) != want[1] {
			t.Errorf("%s: %s, %s, %v", address, got, origin(got), err)
		}
	}
}
