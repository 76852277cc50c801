package client

import (
	"encoding/json"
	"time"
)

// Event is what Next returns: one of the types below, as a value.
type Event interface{ event() }

// Peer is a member of a room, or who calls.
type Peer struct {
	ID   string `json:"peer"` // where signals go to
	User string `json:"user"` // as the server has authenticated it
	Name string `json:"name"` // what to show
}

// Connected: a connection stands, the first one or another.
type Connected struct {
	Peer   string // own peer id
	User   string // who the server says this is
	Name   string // what others see
	Limits Limits

	// Resumed says that the session goes on as if nothing had happened. If it is false and this is not the first Connected, the
	// server has lost the session: calls are gone, and every room is joined again, each with a Joined of its own.
	Resumed bool
	// Changed: others know this client by another peer id than before.
	Changed bool
	// Unconfirmed are the signals and broadcasts of the session that is lost, oldest first, of which it is not known whether
	// the server has handled them.
	Unconfirmed []Unconfirmed
}

// Unconfirmed is something sent whose fate is unknown. To or Room is empty.
type Unconfirmed struct {
	To   string
	Room string
	Data json.RawMessage
}

// Limits are the server's own, as it told them.
type Limits struct {
	FrameBytes    int `json:"frameBytes"`    // one message to the server
	RoomsPerPeer  int `json:"roomsPerPeer"`  // rooms this client may be in
	PeersPerRoom  int `json:"peersPerRoom"`  // members of a room
	MessageRate   int `json:"messageRate"`   // messages a second
	MessageBytes  int `json:"messageBytes"`  // bytes a second
	QueueBytes    int `json:"queueBytes"`    // what the server keeps for this client
	ResumeSeconds int `json:"resumeSeconds"` // how long it keeps a session without connection
}

// Disconnected: the connection has ended; the client comes back by itself.
type Disconnected struct{ Err error }

// Joined is a full picture of a room: after Join, and after a session was lost.
type Joined struct {
	Room    string
	Version uint64 // grows with every change of the room
	Peers   []Peer // oneself included
	You     string // own peer id
	Relay   string // names the node whose relay serves the room; opaque, often empty
}

// PeerJoined: a peer has come into a room.
type PeerJoined struct {
	Room    string
	Version uint64
	Peer    Peer
}

// PeerLeft: a peer has gone.
type PeerLeft struct {
	Room    string
	Version uint64
	Peer    string // peer id
	Reason  string // ReasonLeft or ReasonGone
}

// RoomChanged: another node's relay serves the room now; ask again with ICEServers.
type RoomChanged struct {
	Room    string
	Version uint64
	Relay   string
}

// RoomLost: after a lost session the room could not be joined again.
type RoomLost struct {
	Room string
	Err  error
}

// Signal is what a peer sent to this client alone; Data is byte for byte what was sent.
type Signal struct {
	From string
	Data json.RawMessage
}

// Broadcast is what a peer sent to the others in a room.
type Broadcast struct {
	Room string
	From string
	Data json.RawMessage
}

// Undeliverable: a signal of this client's did not arrive.
type Undeliverable struct {
	To     string
	Reason string // ReasonGone, ReasonBusy or ReasonNotInRoom
}

// Ring: somebody calls this user.
type Ring struct {
	Call      string // for Accept and Decline
	From      Peer
	Room      string // where to meet
	ExpiresAt time.Time
}

// RingEnded: a call rings no more here.
type RingEnded struct {
	Call   string
	Reason string // ReasonAnswered, ReasonDeclined, ReasonCancelled or ReasonTimeout
}

// Accepted: a call of this client's was accepted.
type Accepted struct {
	Call string
	By   Peer
	Room string
}

// Declined: a call of this client's was not accepted.
type Declined struct {
	Call   string
	Reason string // ReasonDeclined or ReasonTimeout
	By     Peer   // who declined, if anybody did
}

// Renewed are fresh ICE servers, with Options.RenewICE.
type Renewed struct {
	Room string // for which room; empty: for none in particular
	ICE  ICE
}

// Refused: the server did not take a signal or broadcast, for instance because it came too fast.
type Refused struct{ Err *Error }

// ICE is a list of ICE servers with credentials that end.
type ICE struct {
	Servers   []ICEServer
	ExpiresAt time.Time // renew at half the time until then
}

// ICEServer is one entry as RTCPeerConnection takes it.
type ICEServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// Reasons.
const (
	ReasonLeft      = "left"
	ReasonGone      = "gone"
	ReasonBusy      = "busy"
	ReasonNotInRoom = "not-in-room"
	ReasonAnswered  = "answered"
	ReasonDeclined  = "declined"
	ReasonCancelled = "cancelled"
	ReasonTimeout   = "timeout"
)

func (Connected) event()     {}
func (Disconnected) event()  {}
func (Joined) event()        {}
func (PeerJoined) event()    {}
func (PeerLeft) event()      {}
func (RoomChanged) event()   {}
func (RoomLost) event()      {}
func (Signal) event()        {}
func (Broadcast) event()     {}
func (Undeliverable) event() {}
func (Ring) event()          {}
func (RingEnded) event()     {}
func (Accepted) event()      {}
func (Declined) event()      {}
func (Renewed) event()       {}
func (Refused) event()       {}
