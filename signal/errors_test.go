package signal

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestFaultsSayTheLimitAndTheUnknownType(t *testing.T) {
	a := connect(t, newCluster(t, 1, Limits{}).nodes[0], "user=ada")
	for frame, want := range map[string]string{
		`{"type":"dance"}`: `there is no type "dance"`,
		`{"type":"` + strings.Repeat("é", 99) + `"}`:                `there is no type "` + strings.Repeat("é", 32) + `"`,
		`{"type":"join","room":"` + strings.Repeat("r", 65) + `"}`:  "room is longer than 64 bytes",
		`{"type":"call","user":"` + strings.Repeat("u", 129) + `"}`: "user is longer than 128 bytes",
	} {
		a.send(frame)
		if m := a.expect("error"); m.Message != want {
			t.Errorf("%.40s: %q", frame, m.Message)
		}
	}
}

func TestFaultsAreNamedAndTheConnectionGoesOn(t *testing.T) {
	c := newCluster(t, 1, Limits{PeersPerRoom: 2, RoomsPerPeer: 2})
	n := c.nodes[0]
	full := []*client{connect(t, n, "user=x"), connect(t, n, "user=y")}
	for _, f := range full {
		f.join("full")
	}
	long := strings.Repeat("ä", 33) // 66 bytes
	for _, test := range []struct{ name, frame, code, field string }{
		{"not JSON", `{"type":`, "bad-json", ""},
		{"an array", `[]`, "bad-json", ""},
		{"two objects", `{}{}`, "bad-json", ""},
		{"not UTF-8", "{\"type\":\"signal\",\"to\":\"x\",\"data\":\"\xff\"}", "bad-json", ""},
		{"nested too deep", `{"type":"signal","to":"x","data":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "bad-json", ""},
		{"no type", `{}`, "bad-type", "type"},
		{"type not a string", `{"type":1}`, "bad-type", "type"},
		{"unknown type", `{"type":"dance"}`, "bad-type", "type"},
		{"a second hello", `{"type":"hello"}`, "bad-type", "type"},
		{"room missing", `{"type":"join"}`, "bad-field", "room"},
		{"room a number", `{"type":"join","room":1}`, "bad-field", "room"},
		{"room empty", `{"type":"join","room":""}`, "bad-field", "room"},
		{"room reserved", `{"type":"join","room":"@user/ada"}`, "bad-field", "room"},
		{"room with a control character", `{"type":"join","room":"a\u0000b"}`, "bad-field", "room"},
		{"room too long", `{"type":"join","room":"` + long + `"}`, "too-long", "room"},
		{"id too long", `{"type":"ping","id":"` + long + `"}`, "too-long", "id"},
		{"to too long", `{"type":"signal","data":1,"to":"` + long + `"}`, "too-long", "to"},
		{"data missing", `{"type":"signal","to":"x"}`, "bad-field", "data"},
		{"broadcast elsewhere", `{"type":"broadcast","room":"other","data":1}`, "not-in-room", "room"},
		{"leave elsewhere", `{"type":"leave","room":"other"}`, "not-in-room", "room"},
		{"full room", `{"type":"join","room":"full"}`, "room-full", "room"},
		{"ack of the future", `{"type":"ack","seq":1000}`, "bad-field", "seq"},
		{"ack without seq", `{"type":"ack"}`, "bad-field", "seq"},
		{"number with a gap", `{"type":"join","room":"r","seq":7}`, "bad-field", "seq"},
		{"number zero", `{"type":"join","room":"r","seq":0}`, "bad-field", "seq"},
		{"number not an integer", `{"type":"join","room":"r","seq":1.5}`, "bad-field", "seq"},
		{"nobody to call", `{"type":"call","user":"nobody","room":"r"}`, "unavailable", "user"},
		{"no such call", `{"type":"accept","call":"x"}`, "no-such-call", "call"},
		{"no ICE servers", `{"type":"ice-servers"}`, "unavailable", ""},
		{"ICE servers of a strange room", `{"type":"ice-servers","room":"other"}`, "not-in-room", "room"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := connect(t, n, "user=a")
			a.t = t
			a.send(test.frame)
			if m := a.expect("error"); m.Code != test.code || m.Field != test.field || m.Message == "" || m.Seq == 0 {
				t.Fatalf("want %s of %q, got %s", test.code, test.field, m.raw)
			}
			a.quiet()
		})
	}
	a := connect(t, n, "user=a")
	a.join("1")
	a.join("2")
	a.send(`{"type":"join","room":"3","id":"i"}`)
	if m := a.expect("error"); m.Code != "too-many-rooms" || m.ID != "i" {
		t.Fatalf("%s", m.raw)
	}
	a.send(`{"type":"leave","room":"1"}`)
	a.expect("left")
	a.join("3")
	if err := a.ws.Write(ctx10(t), websocket.MessageBinary, []byte(`{"type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	if m := a.expect("error"); m.Code != "bad-json" {
		t.Fatalf("%s", m.raw)
	}
}

func TestTheSixteenthFaultCloses(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	a := connect(t, c.nodes[0], "user=a")
	for range faultsPerMinute {
		a.send("?")
		a.expect("error")
	}
	a.send("?")
	a.expect("error")
	if code := a.closed(); code != 4000 {
		t.Fatal(code)
	}
	eventually(t, "the session ends", func() bool { return c.nodes[0].hub.Stats().Sessions == 0 })
}

func TestTheFirstMessageIsHello(t *testing.T) {
	c := newCluster(t, 1, Limits{HelloTimeout: 400 * time.Millisecond})
	a := dial(t, c.nodes[0], "user=a")
	go a.read()
	a.send(`{"type":"join","room":"r"}`)
	if m := a.expect("error"); m.Code != "not-hello" {
		t.Fatalf("%s", m.raw)
	}
	if code := a.closed(); code != 4000 {
		t.Fatal(code)
	}
	b := dial(t, c.nodes[0], "user=b")
	go b.read()
	b.send(`{"type":"hello","name":""}`)
	if m := b.expect("error"); m.Code != "bad-field" || m.Field != "name" {
		t.Fatalf("%s", m.raw)
	}
	b.send(`{"type":"hello","resume":{"token":"` + strings.Repeat("x", 129) + `","seq":0}}`)
	if m := b.expect("error"); m.Code != "too-long" || m.Field != "resume.token" {
		t.Fatalf("%s", m.raw)
	}
	b.send(`{"type":"hello","name":"Bee"}`)
	if m := b.expect("welcome"); m.Name != "Bee" {
		t.Fatalf("%s", m.raw)
	}
	d := dial(t, c.nodes[0], "user=d")
	go d.read()
	if code := d.closed(); code != 4008 {
		t.Fatal(code)
	}
}

func TestAFrameOverTheLimitClosesWith1009AndTheSessionIsHeld(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	a := connect(t, c.nodes[0], "user=a")
	a.send(`{"type":"signal","to":"x","data":"` + strings.Repeat("x", 256<<10) + `"}`)
	if code := a.closed(); code != websocket.StatusMessageTooBig {
		t.Fatal(code, a.err)
	}
	if b := a.resume(c.nodes[0], "user=a"); !b.hello.Resumed {
		t.Fatalf("%s", b.hello.raw)
	}
}

func TestRoomTokensOpenTheirRoomOnly(t *testing.T) {
	c := newCluster(t, 1, Limits{})
	a := connect(t, c.nodes[0], "user=a&room=mine&ice=1")
	if len(a.hello.ICE) != 0 {
		t.Fatalf("%s", a.hello.raw)
	}
	for _, frame := range []string{`{"type":"join","room":"other"}`, `{"type":"call","user":"u","room":"other"}`, `{"type":"ice-servers"}`} {
		a.send(frame)
		if m := a.expect("error"); m.Code != "not-allowed" {
			t.Fatalf("%s: %s", frame, m.raw)
		}
	}
	a.join("mine")
	a.send(`{"type":"ice-servers","room":"mine"}`)
	a.expect("ice-servers")
}

func TestOverTheMessageRateIsRefusedThenClosed(t *testing.T) {
	t.Parallel() // takes as long as a client may be over its rate
	c := newCluster(t, 1, Limits{MessageRate: 20})
	a := connect(t, c.nodes[0], "user=a")
	for range 60 {
		a.send(`{"type":"ping"}`)
	}
	if m := a.await("error"); m.Code != "rate-limited" {
		t.Fatalf("%s", m.raw)
	}
	// A numbered message that is refused has its number used up: no gap follows.
	for n := 1; n <= 60; n++ {
		a.send(fmt.Sprintf(`{"type":"leave","room":"r","id":"%d","seq":%d}`, n, n))
	}
	codes := map[string]int{}
	for codes["rate-limited"]+codes["not-in-room"] < 60 {
		m := a.next()
		if m.Type == "error" && m.ID != "" {
			codes[m.Code]++
		}
	}
	if codes["rate-limited"] == 0 || codes["not-in-room"] == 0 || len(codes) != 2 {
		t.Fatal(codes)
	}
	go func() {
		for a.ws.Write(context.Background(), websocket.MessageText, []byte(`{"type":"ping"}`)) == nil {
		}
	}()
	if code := a.closed(); code != 4004 {
		t.Fatal(code, a.err)
	}
}

func TestMeterRefillsAndForgives(t *testing.T) {
	l := Limits{MessageRate: 10, MessageBytes: 1000}
	now := time.Unix(1000, 0)
	var m meter
	for i := range 20 {
		if m.message(1, &l, now) != pass {
			t.Fatalf("message %d of the burst refused", i)
		}
	}
	if m.message(1, &l, now) != refuse {
		t.Fatal("over the burst")
	}
	if now = now.Add(100 * time.Millisecond); m.message(1, &l, now) != pass {
		t.Fatal("not refilled")
	}
	if now = now.Add(time.Hour); m.message(2001, &l, now) != refuse || m.message(1999, &l, now) != pass {
		t.Fatal("bytes are not counted")
	}
	now = now.Add(time.Hour)
	for at := time.Duration(0); ; at += 50 * time.Millisecond {
		if v := m.message(1, &l, now.Add(at)); v == overload {
			if at < overloadDuration {
				t.Fatal("closed after", at)
			}
			break
		}
		if at > 20*time.Second {
			t.Fatal("never closed")
		}
	}
	for i := range 40 { // once a minute is not often
		if m.fault(now.Add(time.Duration(i) * time.Minute)) {
			t.Fatal("rare faults closed")
		}
	}
}

func TestUpgradesThatCannotBeAreAnsweredByHTTP(t *testing.T) {
	c := newCluster(t, 1, Limits{Connections: 1})
	n := c.nodes[0]
	upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	if res := httpGet(t, n.http.URL+"?user=a", upgrade); res.StatusCode != http.StatusBadRequest {
		t.Error("without subprotocol:", res.Status)
	} else if kind := res.Header.Get("Content-Type"); kind != "application/json" {
		t.Error("refused as", kind)
	}
	if res := httpGet(t, n.http.URL+"?user=a", http.Header{"Sec-Websocket-Protocol": {Subprotocol}}); res.StatusCode != http.StatusUpgradeRequired {
		t.Error("without upgrade:", res.Status)
	}
	if res := httpGet(t, n.http.URL, upgrade); res.StatusCode != http.StatusForbidden {
		t.Error("without user:", res.Status)
	}
	connect(t, n, "user=a")
	upgrade.Set("Sec-Websocket-Protocol", "x, callbox.v1")
	if res := httpGet(t, n.http.URL+"?user=a", upgrade); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Error("when full:", res.Status)
	}
}

func TestFragmentsWithoutEndAreCutOff(t *testing.T) {
	c := newCluster(t, 1, Limits{FrameBytes: 16 << 10})
	a := openBare(t, strings.TrimPrefix(c.nodes[0].http.URL, "http://"), "a")
	defer a.Close()
	first := []byte{0x01, 0x80, 0, 0, 0, 0} // a text frame that is not final, and empty
	next := bytes.Repeat([]byte{0x00, 0x80, 0, 0, 0, 0}, 1000)
	_, err := a.Write(first)
	for i := 0; err == nil; i++ {
		if i > 10_000 {
			t.Fatal("read for ever")
		}
		_, err = a.Write(next)
	}
	eventually(t, "the session is held", func() bool { return c.nodes[0].hub.Stats().Held == 1 })
}
