package signal

import (
	"fmt"
	"unicode/utf8"
)

// kind is the type of a client's message.
type kind uint8

const (
	kindNone kind = iota
	kindHello
	kindJoin
	kindLeave
	kindSignal
	kindBroadcast
	kindCall
	kindAccept
	kindDecline
	kindCancel
	kindICE
	kindAck
	kindPing
	kindBye
	kinds // how many
)

func kindOf(name string) kind {
	switch name {
	case "hello":
		return kindHello
	case "join":
		return kindJoin
	case "leave":
		return kindLeave
	case "signal":
		return kindSignal
	case "broadcast":
		return kindBroadcast
	case "call":
		return kindCall
	case "accept":
		return kindAccept
	case "decline":
		return kindDecline
	case "cancel":
		return kindCancel
	case "ice-servers":
		return kindICE
	case "ack":
		return kindAck
	case "ping":
		return kindPing
	case "bye":
		return kindBye
	}
	return kindNone
}

func (k kind) String() string {
	return [kinds]string{"none", "hello", "join", "leave", "signal", "broadcast", "call",
		"accept", "decline", "cancel", "ice-servers", "ack", "ping", "bye"}[k]
}

// numbered says whether a client may give messages of this kind a number.
func (k kind) numbered() bool { return k >= kindJoin && k <= kindICE }

// clientMessage is one decoded message. data aliases the frame.
type clientMessage struct {
	kind      kind
	id        string
	seq       uint64 // 0: none
	room      string
	to        string
	user      string
	call      string
	name      string
	data      []byte
	resume    bool
	token     string
	resumeSeq uint64
}

// Codes of fault and of the other errors.
const (
	codeBadJSON      = "bad-json"
	codeBadType      = "bad-type"
	codeBadField     = "bad-field"
	codeTooLong      = "too-long"
	codeNotHello     = "not-hello"
	codeNotAllowed   = "not-allowed"
	codeRoomFull     = "room-full"
	codeTooManyRooms = "too-many-rooms"
	codeNotInRoom    = "not-in-room"
	codeUnavailable  = "unavailable"
	codeNoSuchCall   = "no-such-call"
	codeTooManyCalls = "too-many-calls"
	codeRateLimited  = "rate-limited"
	codeBusy         = "busy"
)

// fault is why a request was not done.
type fault struct {
	code, field, text string
}

func bad(field, text string) *fault { return &fault{codeBadField, field, text} }

// isFault says whether the client itself is wrong, as opposed to the state of things.
func (f *fault) isFault() bool {
	switch f.code {
	case codeBadJSON, codeBadType, codeBadField, codeTooLong, codeNotHello:
		return true
	}
	return false
}

// decode reads one frame. With a fault the message still has what was
// understood of id, kind and seq, for the answer.
func decode(frame []byte) (m clientMessage, f *fault) {
	if !utf8.Valid(frame) {
		return m, &fault{codeBadJSON, "", "the frame is not UTF-8"}
	}
	var typ, id, seq, room, to, user, call, name, resume []byte
	s := scanner{b: frame}
	ok := s.object(func(key, value []byte) {
		switch string(key) {
		case "type":
			typ = value
		case "id":
			id = value
		case "seq":
			seq = value
		case "room":
			room = value
		case "to":
			to = value
		case "user":
			user = value
		case "call":
			call = value
		case "name":
			name = value
		case "data":
			m.data = value
		case "resume":
			resume = value
		}
	})
	if !ok {
		return m, &fault{codeBadJSON, "", "the frame is not one JSON object, nested at most 128 deep"}
	}
	t, ok := unquote(typ)
	if !ok {
		return m, &fault{codeBadType, "type", "type is missing or not a string"}
	}
	m.kind = kindOf(t)
	if f := text(&m.id, id, "id", maxID, optional); f != nil {
		return m, f
	}
	if seq != nil {
		n, ok := uinteger(seq)
		if !ok || n == 0 && m.kind != kindAck {
			return m, bad("seq", "seq is not a positive integer")
		}
		m.seq = n
	}
	switch m.kind {
	case kindNone:
		return m, &fault{codeBadType, "type", fmt.Sprintf("there is no type %.32q", t)}
	case kindHello:
		if f = text(&m.name, name, "name", maxName, optional); f == nil && resume != nil {
			f = m.decodeResume(resume)
		}
	case kindJoin, kindLeave:
		f = roomName(&m.room, room, required)
	case kindSignal:
		if f = text(&m.to, to, "to", maxPeerID, required); f == nil && m.data == nil {
			f = bad("data", "data is missing")
		}
	case kindBroadcast:
		if f = roomName(&m.room, room, required); f == nil && m.data == nil {
			f = bad("data", "data is missing")
		}
	case kindCall:
		if f = text(&m.user, user, "user", maxName, required); f == nil {
			f = roomName(&m.room, room, required)
		}
	case kindAccept, kindDecline, kindCancel:
		f = text(&m.call, call, "call", maxID, required)
	case kindICE:
		f = roomName(&m.room, room, optional)
	case kindAck:
		if seq == nil {
			f = bad("seq", "seq is missing")
		}
	}
	return m, f
}

func (m *clientMessage) decodeResume(raw []byte) (f *fault) {
	var token, seq []byte
	s := scanner{b: raw}
	if !s.object(func(key, value []byte) {
		switch string(key) {
		case "token":
			token = value
		case "seq":
			seq = value
		}
	}) {
		return bad("resume", "resume is not an object")
	}
	if f := text(&m.token, token, "resume.token", maxName, required); f != nil {
		return f
	}
	n, ok := uinteger(seq)
	if !ok {
		return bad("resume.seq", "resume.seq is missing or not an integer")
	}
	m.resume, m.resumeSeq = true, n
	return nil
}

type need bool

const (
	optional need = false
	required need = true
)

// text takes a field that is a string.
func text(dst *string, raw []byte, field string, limit int, n need) *fault {
	if raw == nil {
		if n == optional {
			return nil
		}
		return bad(field, field+" is missing")
	}
	v, ok := unquote(raw)
	if !ok {
		return bad(field, field+" is not a string")
	}
	switch checkText(v, limit) {
	case textEmpty:
		return bad(field, field+" is empty")
	case textLong:
		return &fault{codeTooLong, field, fmt.Sprintf("%s is longer than %d bytes", field, limit)}
	case textBad:
		return bad(field, field+" has control characters")
	}
	*dst = v
	return nil
}

func roomName(dst *string, raw []byte, n need) *fault {
	if f := text(dst, raw, "room", maxRoomName, n); f != nil {
		return f
	}
	if len(*dst) > 0 && (*dst)[0] == '@' {
		return bad("room", "room names do not begin with @")
	}
	return nil
}
