package signal

import (
	"time"

	"callbox/bus"

	"github.com/coder/websocket"
)

// eventKind is what happens to a session; a protocol writes it as its frame.
type eventKind uint8

const (
	evWelcome eventKind = iota + 1
	evJoined
	evLeft
	evPeerJoined
	evPeerLeft
	evRoomChanged
	evSignal
	evBroadcast
	evUndeliverable
	evCalling
	evRing
	evAccepted
	evDeclined
	evRingEnded
	evICE
	evError
	evPong
	evAck
	evGoaway
	evAdmitted // to a room of another server's protocol
)

// Reasons, as the wire has them.
const (
	reasonLeft      = "left"
	reasonGone      = "gone"
	reasonBusy      = "busy"
	reasonAnswered  = "answered"
	reasonDeclined  = "declined"
	reasonCancelled = "cancelled"
	reasonTimeout   = "timeout"
)

// person is a peer as others see it.
type person struct {
	peer, user, name string
}

// event is one thing to tell a client. Which fields count depends on kind.
type event struct {
	kind    eventKind
	id      string // of the request it answers
	room    string
	version uint64
	relay   bus.NodeID
	who     person   // from, by, or the peer that came or went
	people  []person // of evJoined
	call    string
	user    string
	to      string
	reason  string
	until   time.Time
	number  uint64 // received, acknowledged, milliseconds
	data    []byte
	fault   *fault
	ice     *ICE
	resumed bool
}

// protocol is a wire protocol: how a session's events look on its connection.
type protocol interface {
	// name of the protocol; a session is resumed only in the one it began in.
	name() string
	index() int // of its counters
	// append adds the frame's payload for e. seq is its number, 0 for an event
	// that is outside the numbering. Nothing appended: the protocol has no
	// such event.
	append(b []byte, s *session, seq uint64, e *event) []byte
	// acknowledged says whether clients acknowledge what they got; if not, a frame
	// is forgotten when it is written, and a session ends with its connection.
	acknowledged() bool
	// message handles one message; v says whether it is over the rate. Its time is that of the
	// connection's reader, and b is only lent.
	message(c *conn, v verdict, typ websocket.MessageType, b []byte)
	// last says whether nothing can follow e: the session ends with it.
	last(e *event) bool
	// heartbeat says how a silent connection is looked after.
	heartbeat(l *Limits) heartbeat
	// roomSize is how many peers a room may have.
	roomSize(room string, l *Limits) int
	// returns says whether a client that is sent away comes back by itself, with nothing lost.
	returns() bool
}

// heartbeat is how a silent connection is looked after.
type heartbeat struct {
	after time.Duration // silence after which frame is sent, once
	every time.Duration // above zero: frame is sent that often instead, silent or not
	until time.Duration // silence after which the connection is given up
	frame string        // ready to write
}
