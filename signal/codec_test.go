package signal

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"unicode/utf8"
)

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"type":"hello","resume":{"token":"abc","seq":3},"name":"Ada"}`, `{"type":"join","room":"tea","id":"1","seq":1}`,
		`{"type":"signal","to":"p","data":{"a":[1,2.5e-3,"\u00e9\\"],"b":null}}`, `{"type":"broadcast","room":"r","data":"x"}`,
		`{"type":"ack","seq":12}`, `{"type":"call","user":"bob","room":"r"}`, ` { "type" : "bye" } `, `[]`, `{"a":1}{}`, `{"type":"ping","id":1}`,
		`{"type":"signal","to":"p","data":-0.0e+1}`, `{"type":"signal","to":"p","data":[[[[{}]]]]}`, "{\"type\":\"\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, wrong := decode(b)
		if wrong != nil {
			if wrong.code == "" || wrong.text == "" {
				t.Fatalf("a fault that says nothing: %+v", wrong)
			}
			if wrong.code == codeBadJSON && utf8.Valid(b) && json.Valid(b) && bytes.TrimSpace(b)[0] == '{' && bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) < maxDepth {
				t.Fatalf("refused though it is an object: %q", b)
			}
			return
		}
		var loose struct {
			Type string
			Data json.RawMessage
		}
		if err := json.Unmarshal(b, &loose); err != nil {
			t.Fatalf("accepted, but encoding/json says %v: %q", err, b)
		}
		if m.data != nil && !json.Valid(m.data) {
			t.Fatalf("data is not JSON: %q", m.data)
		}
		for _, s := range []string{m.id, m.room, m.to, m.user, m.call, m.name} {
			if s != "" && (len(s) > maxName || checkText(s, maxName) != textOK) {
				t.Fatalf("a bad name passed: %q", s)
			}
		}
		// What is passed on must be whole again.
		s := &session{peer: "me"}
		for _, e := range []*event{
			{kind: evSignal, who: person{peer: m.to}, data: orNull(m.data)},
			{kind: evError, id: m.id, fault: &fault{"c", "f", m.name}},
			{kind: evJoined, room: m.room, people: []person{{m.to, m.user, m.name}}},
		} {
			if out := (callbox1{}).append(nil, s, 7, e); !json.Valid(out) || !utf8.Valid(out) {
				t.Fatalf("written: %q", out)
			}
		}
	})
}

func orNull(b []byte) []byte {
	if b == nil {
		return []byte("null")
	}
	return b
}

func FuzzDecodePacket(f *testing.F) {
	p := packet{kind: pkSignal, from: "a", to: "b", id: "i", sid: 1 << 60, n: 2, prev: 1, data: []byte(`{"x":1}`)}
	f.Add(p.encode())
	p = packet{kind: pkJoined, room: "r", version: 99, peer: "p", user: "u", name: "n", epoch: 3, node: "n1.x"}
	f.Add(p.encode())
	f.Add([]byte{packetVersion, 1, 0xff, 0xff, 3, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePacket(b)
		if err != nil {
			return
		}
		q, err := decodePacket(p.encode())
		if err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	c := sessionCargo{sessionHead: sessionHead{Protocol: Subprotocol, User: "u"}, frames: [][]byte{[]byte("x")}, packets: [][]byte{{1}}}
	b, err := c.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{2, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCargo(b)
		if err == nil && (len(c.frames) != c.Frames || len(c.packets) != c.Packets) {
			t.Fatal("counts differ")
		}
	})
}

func TestPacketsAreReadAsTheyWereWritten(t *testing.T) {
	for range 2000 {
		var p packet
		p.kind = packetKind(1 + rand.IntN(int(packetKinds)-1))
		for _, s := range p.strings() {
			if rand.IntN(2) == 0 {
				*s = string(bytes.Repeat([]byte{byte('a' + rand.IntN(26))}, rand.IntN(300)))
			}
		}
		for _, n := range p.numbers() {
			if rand.IntN(2) == 0 {
				*n = rand.Uint64() >> rand.IntN(64)
			}
		}
		p.data = bytes.Repeat([]byte("x"), rand.IntN(1000))
		q, err := decodePacket(p.encode())
		if err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	}
}

func TestASessionsStateIsReadAsItWasWritten(t *testing.T) {
	h := &Hub{limits: Limits{}.withDefaults()}
	s := &session{hub: h, proto: callbox1{}, peer: "p", who: person{"p", "u", "n"}, login: true, sid: 5, base: 7, received: 3, counter: 9,
		chains: map[string]uint64{"q": 8}, queue: [][]byte{[]byte("one"), []byte("two")},
		sources: map[string]*source{"x": {sid: 2, last: 4, pending: []pendingMessage{{n: 6, prev: 5, p: packet{kind: pkSignal, from: "x", to: "p", n: 6, prev: 5, sid: 2, data: []byte("1")}}}}},
		calls:   map[string]*call{"c": {user: "v", room: "r"}}, rings: map[string]*ring{"d": {from: person{"y", "y", "y"}, room: "r", node: "n"}}}
	cargo := s.cargoLocked()
	b, err := cargo.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeCargo(b)
	if err != nil {
		t.Fatal(err)
	}
	r := &session{hub: h, proto: callbox1{}, peer: "p"}
	r.restore(back)
	if !reflect.DeepEqual(r.queue, s.queue) || r.who != s.who || !r.login || r.sid != 5 || r.base != 7 || r.received != 3 || r.counter != 9 ||
		!reflect.DeepEqual(r.chains, s.chains) || r.sources["x"].last != 4 || len(r.waiting) != 1 || r.waiting[0].n != 6 ||
		*r.rings["d"] != *s.rings["d"] || r.calls["c"].room != "r" || r.bytes != 6+2*frameOverhead {
		t.Fatalf("%+v", r)
	}
}
