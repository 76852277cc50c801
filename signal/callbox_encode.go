package signal

import (
	"encoding/json"
	"strconv"
	"time"
)

// callbox1 is callbox.v1 on the server's side.
type callbox1 struct{}

func (callbox1) name() string       { return Subprotocol }
func (callbox1) index() int         { return protoCallbox }
func (callbox1) acknowledged() bool { return true }

func (callbox1) append(b []byte, s *session, seq uint64, e *event) []byte {
	w := writer{b}
	switch e.kind {
	case evWelcome:
		w.open("welcome", seq)
		w.welcome(s, e)
	case evJoined:
		w.open("joined", seq)
		w.str("room", e.room)
		w.num("version", e.version)
		w.raw(`,"peers":[`)
		for i, p := range e.people {
			if i > 0 {
				w.raw(",")
			}
			w.person(p)
		}
		w.raw("]")
		w.str("you", s.peer)
		w.opt("relay", string(e.relay))
	case evLeft:
		w.open("left", seq)
		w.str("room", e.room)
	case evPeerJoined:
		w.open("peer-joined", seq)
		w.str("room", e.room)
		w.num("version", e.version)
		w.key("peer").person(e.who)
	case evPeerLeft:
		w.open("peer-left", seq)
		w.str("room", e.room)
		w.num("version", e.version)
		w.str("peer", e.who.peer)
		w.str("reason", e.reason)
	case evRoomChanged:
		w.open("room-changed", seq)
		w.str("room", e.room)
		w.num("version", e.version)
		w.str("relay", string(e.relay))
	case evSignal:
		w.open("signal", seq)
		w.str("from", e.who.peer)
		w.key("data").bytes(e.data)
	case evBroadcast:
		w.open("broadcast", seq)
		w.str("room", e.room)
		w.str("from", e.who.peer)
		w.key("data").bytes(e.data)
	case evUndeliverable:
		w.open("undeliverable", seq)
		w.str("to", e.to)
		w.str("reason", e.reason)
	case evCalling:
		w.open("calling", seq)
		w.str("call", e.call)
		w.str("user", e.user)
		w.str("room", e.room)
		w.time("expiresAt", e.until)
	case evRing:
		w.open("ring", seq)
		w.str("call", e.call)
		w.key("from").person(e.who)
		w.str("room", e.room)
		w.time("expiresAt", e.until)
	case evAccepted:
		w.open("accepted", seq)
		w.str("call", e.call)
		w.key("by").person(e.who)
		w.str("room", e.room)
	case evDeclined:
		w.open("declined", seq)
		w.str("call", e.call)
		w.str("reason", e.reason)
		if e.who.peer != "" {
			w.key("by").person(e.who)
		}
	case evRingEnded:
		w.open("ring-ended", seq)
		w.str("call", e.call)
		w.str("reason", e.reason)
	case evICE:
		w.open("ice-servers", seq)
		w.ice(e.ice)
		w.opt("room", e.room)
	case evError:
		w.open("error", seq)
		w.str("code", e.fault.code)
		w.str("message", e.fault.text)
		w.opt("field", e.fault.field)
	case evPong:
		w.open("pong", seq)
		w.num("received", e.number)
	case evAck:
		w.raw(`{"type":"ack"`)
		w.num("seq", e.number)
	case evGoaway:
		w.open("goaway", seq)
		w.num("afterMs", e.number)
		w.str("reason", e.reason)
	default:
		return b
	}
	w.opt("id", e.id)
	w.raw("}")
	return w.b
}

// writer builds one JSON object.
type writer struct{ b []byte }

func (w *writer) raw(s string)   { w.b = append(w.b, s...) }
func (w *writer) bytes(p []byte) { w.b = append(w.b, p...) }

func (w *writer) open(typ string, seq uint64) {
	w.b = append(w.b, `{"type":"`...)
	w.b = append(w.b, typ...)
	w.b = append(w.b, '"')
	if seq > 0 {
		w.num("seq", seq)
	}
}

func (w *writer) key(k string) *writer {
	w.b = append(w.b, ',', '"')
	w.b = append(w.b, k...)
	w.b = append(w.b, '"', ':')
	return w
}

func (w *writer) str(k, v string) {
	w.key(k)
	w.b = appendQuoted(w.b, v)
}

func (w *writer) opt(k, v string) {
	if v != "" {
		w.str(k, v)
	}
}

func (w *writer) num(k string, v uint64) {
	w.key(k)
	w.b = strconv.AppendUint(w.b, v, 10)
}

func (w *writer) time(k string, t time.Time) { w.str(k, t.UTC().Format(time.RFC3339)) }

func (w *writer) person(p person) {
	w.b = append(w.b, `{"peer":`...)
	w.b = appendQuoted(w.b, p.peer)
	w.b = append(w.b, `,"user":`...)
	w.b = appendQuoted(w.b, p.user)
	w.b = append(w.b, `,"name":`...)
	w.b = appendQuoted(w.b, p.name)
	w.b = append(w.b, '}')
}

func (w *writer) ice(ice *ICE) {
	servers, err := json.Marshal(ice.Servers)
	if err != nil || ice.Servers == nil {
		servers = []byte("[]")
	}
	w.key("iceServers").bytes(servers)
	w.num("ttlSeconds", uint64(max(ice.TTLSeconds, 0)))
	w.time("expiresAt", ice.ExpiresAt)
}

func (w *writer) welcome(s *session, e *event) {
	w.str("peer", s.peer)
	w.str("user", s.who.user)
	w.str("name", s.who.name)
	w.str("resume", s.token)
	w.key("resumed").raw(strconv.FormatBool(e.resumed))
	w.num("received", e.number)
	if e.ice != nil {
		w.ice(e.ice)
	}
	l := &s.hub.limits
	w.raw(`,"limits":{"frameBytes":` + strconv.Itoa(l.FrameBytes))
	w.num("roomsPerPeer", uint64(l.RoomsPerPeer))
	w.num("peersPerRoom", uint64(l.PeersPerRoom))
	w.num("messageRate", uint64(l.MessageRate))
	w.num("messageBytes", uint64(l.MessageBytes))
	w.num("queueBytes", uint64(l.QueueBytes))
	w.num("resumeSeconds", uint64(l.ResumeWindow/time.Second))
	w.raw("}")
}
