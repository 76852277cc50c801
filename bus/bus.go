// Package bus is what the nodes of callbox share: messages from node to node,
// the directory that says which node holds which peer, rooms, the list of live
// nodes, and small durable records. It holds the contracts and the record store
// on disk; bus/memory and bus/redis implement them, bus/bustest checks any
// implementation.
//
// It knows nothing of signaling, HTTP or TURN: payloads, member infos and
// record values are opaque bytes to it.
package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
)

// NodeID names one run of one node: the node's name, a dot and a random
// incarnation. It is never reused, so a restarted node is another node.
type NodeID string

// Name is the node's configured name, without the incarnation.
func (id NodeID) Name() string {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i] == '.' {
			return string(id[:i])
		}
	}
	return string(id)
}

// NewNodeID makes the id of a new run of the node called name.
func NewNodeID(name string) NodeID {
	return NodeID(name + "." + strings.ToLower(rand.Text()[:16]))
}

// Protocol is the version of what nodes say to each other. Nodes of two
// adjacent releases share a cluster.
const Protocol = 1

// Limits that every implementation enforces with ErrTooLarge.
const (
	MaxMessage = 512 << 10 // bytes in one message between nodes
	MaxInfo    = 1 << 10   // bytes in Member.Info
	MaxName    = 512       // bytes in a peer id or a room name
	MaxParked  = 1 << 20   // bytes of parked state
	MaxWait    = time.Minute
	MaxWaiting = 64 // nodes that wait for one peer; further ones are not registered
)

var (
	// ErrNodeGone: the node has ended, or its lease has. Nothing is there to receive.
	ErrNodeGone = errors.New("bus: node is gone")
	// ErrBusy: the bounded buffer towards that node is full.
	ErrBusy = errors.New("bus: buffer towards the node is full")
	// ErrNoLink: this node has no working connection to what the nodes share.
	ErrNoLink = errors.New("bus: no connection to the other nodes")
	// ErrTaken: the peer id is held with another proof.
	ErrTaken = errors.New("bus: peer id is taken")
	// ErrFenced: a higher epoch exists; what the caller held has moved on.
	ErrFenced = errors.New("bus: a newer claim exists")
	// ErrNotFound: no live node holds that peer.
	ErrNotFound = errors.New("bus: peer not found")
	// ErrRoomFull: the room has as many live members as the limit allows.
	ErrRoomFull = errors.New("bus: room is full")
	// ErrTooLarge: a message, info, name or value is over the limits above, or a name is empty.
	ErrTooLarge = errors.New("bus: empty or too large")
	// ErrConflict: a record was changed by others again and again while an update was tried.
	ErrConflict = errors.New("bus: record changed too often meanwhile")
	// ErrClosed: the bus is closed, or Start has not been called where it is needed.
	ErrClosed = errors.New("bus: closed or not started")
)

// Bus is everything that nodes share. Consumers take only the part they use.
// All methods may be called from several goroutines at once.
type Bus interface {
	Messenger
	Directory
	Rooms
	Nodes
	Records

	// Start makes this process a node: it appears in the others' Nodes, and h
	// is called from now on. Called once. Before it only Records and Self may
	// be used.
	Start(h Handler) error
	// Close withdraws the node, so that others know at once, and waits for
	// every goroutine and handler call. Messages not yet delivered come back to
	// their senders as Lost. Never called from within the handler.
	Close() error
	Stats() Stats
}

// Messenger carries messages from node to node.
//
// Guarantees: Send never blocks and never calls the handler itself. The
// messages of one sending node to one receiving node are delivered in the order
// of the calls, each at most once. A message for which Send returned nil is
// either delivered or handed back through the sender's Handler.Lost, unless the
// sender itself ends. Nothing is delivered after it was handed back: a node
// delivers nothing once its lease has ended until it holds a new one, and what
// a live node may have received is handed back only after that. What a node
// delivered in the last moment before it was killed, stopped or cut off may be
// handed back as well, because its receipt never came.
type Messenger interface {
	Self() NodeID
	// Send queues data for the node to; it keeps data, the caller must not
	// change it afterwards. A message to Self is delivered like any other.
	// ErrNodeGone: that node is known to be gone. ErrBusy: too much is on its
	// way there already. ErrTooLarge, ErrClosed.
	Send(to NodeID, data []byte) error
}

// Directory says which node holds which peer.
//
// Guarantees: the epochs granted for one peer only ever grow, also across a loss of all
// shared state. Entries of nodes that are gone do not count, except parked ones.
type Directory interface {
	// Claim makes this node the holder of a peer. Whoever shows the same proof
	// takes the peer over from its holder (Grant.Previous). ErrTaken: a live
	// holder or a parked state has another proof. ErrFenced: Held is above
	// zero and a higher epoch than it is on record.
	Claim(ctx context.Context, c Claim) (Grant, error)
	// Locate finds the holder of a peer and the epoch of its claim, or
	// ErrNotFound. A miss with wait > 0 registers this node, atomically with the
	// miss, as waiting for at most that time (at most MaxWait): whoever claims the peer finds it in
	// Grant.Waiting and may tell it. A parked peer is a miss.
	Locate(ctx context.Context, peer string, wait time.Duration) (NodeID, uint64, error)
	// Release ends a claim. An epoch that is no longer current changes nothing
	// and is no error; from then on this node keeps no entry of that claim
	// alive, nor one of its memberships. So who hears that another node has
	// taken the peer over releases it too.
	Release(ctx context.Context, peer string, epoch uint64) error
	// Park gives a peer up and leaves its state for the next claim with the same proof, for
	// ttl at most; it outlives this node. ErrFenced: the epoch is no longer
	// current, nothing was parked.
	Park(ctx context.Context, peer string, epoch uint64, state []byte, ttl time.Duration) error
}

// Claim asks for a peer.
type Claim struct {
	Peer  string
	Proof []byte // what the claimant must know to take the peer over; only its hash is shared
	Held  uint64 // above zero: the epoch of an earlier claim by this node, re-claimed after an outage
}

// Grant is a claim that succeeded.
type Grant struct {
	Epoch    uint64
	Previous NodeID   // who held or parked the peer before, if anybody; may be this node or one that is gone
	Parked   []byte   // the state that was parked, nil if none; handed out once
	Waiting  []NodeID // who asked for this peer in vain, each once; handed out once; never this node
}

// Rooms are sets of members with an order of versions.
//
// Guarantees: every change raises Version, and of two states of one room the
// one with the higher version is the newer, also across a loss of all shared
// state. The member limit holds under concurrent joins. Members on nodes that
// are gone are neither counted nor returned; leaving them out is a change.
type Rooms interface {
	// Join adds a member, or replaces the one of the same Peer with an epoch
	// not above m.Epoch (a member that is there unchanged does not raise
	// Version). m.Node is set to this node. ErrRoomFull: limit live members are
	// there already (limit <= 0: no limit). ErrFenced: the peer is in the room
	// with a higher epoch.
	Join(ctx context.Context, room string, m Member, limit int) (Room, error)
	// Leave removes a member; one that is not there or has a higher epoch is
	// left alone, without error. It returns the room as it then is.
	Leave(ctx context.Context, room, peer string, epoch uint64) (Room, error)
	// Room returns the room as it is. A room nobody is in has no members.
	Room(ctx context.Context, room string) (Room, error)
}

// Member is one peer in a room.
type Member struct {
	Peer  string
	Node  NodeID
	Epoch uint64
	Info  []byte // opaque, at most MaxInfo bytes
	Relay NodeID // for Join: what the room's relay was, should all that was shared be lost; never returned
}

// Room is one state of a room. Members are in no particular order.
type Room struct {
	Version uint64
	Began   uint64 // the version it began with: nobody was in it before, or all that was shared is lost; 0 without members
	Relay   NodeID // chosen at the first join (Member.Relay, else that node, where they may); changes only when that node is gone or draining; empty without members
	Members []Member
}

// Nodes is the list of nodes that hold a lease.
type Nodes interface {
	// Announce replaces what others see of this node. ID, Name and Started are
	// filled in.
	Announce(ctx context.Context, self NodeInfo) error
	// Nodes returns the live nodes, this one included, sorted by ID, at most a
	// second old while the link is up; without a link, the last that was known.
	Nodes() []NodeInfo
}

// NodeInfo is what a node says of itself.
type NodeInfo struct {
	ID          NodeID    `json:"id"`
	Name        string    `json:"name"`
	TURN        []string  `json:"turn,omitempty"` // advertised turn: and turns: URLs
	Allocations int       `json:"allocations"`
	Connections int       `json:"connections"`
	Draining    bool      `json:"draining,omitempty"`
	Started     time.Time `json:"started"`
	Protocol    int       `json:"protocol"`
}

// Records are users, keys, revocations and the like: small, few, durable and
// the same on every node.
//
// Guarantees: updates of one key form one sequence (compare and set), each with
// a higher version than any before, so that of two copies the newer is known;
// an update that returned nil is on this node's disk. Every node's disk holds
// all records; what is missing from the shared state is put back from there.
type Records interface {
	// Update replaces one record. f gets the present value (nil: none) and
	// returns the new one (nil: delete) and how long it shall live (0: for
	// ever). f may be called several times, must not keep or change old, and
	// its error is returned as it is, with nothing changed. Returning old
	// itself unchanged still counts as an update.
	Update(ctx context.Context, bucket, key string, f func(old []byte) (new []byte, ttl time.Duration, err error)) error
	// Load returns all live records of a bucket by key. Never nil without error.
	Load(ctx context.Context, bucket string) (map[string][]byte, error)
}

// Handler receives what comes from other nodes. Its methods must not block and
// must not wait for calls of the bus (Send is fine); they may be called from
// several goroutines, but for one sending node one at a time and in order.
// After Close has returned none is called.
type Handler interface {
	// Message is one message. data is the handler's to keep, not to change.
	Message(from NodeID, data []byte)
	// Lost hands a message back that was not delivered; why wraps ErrNodeGone
	// or ErrNoLink.
	Lost(to NodeID, data []byte, why error)
	// Changed: a record was updated or deleted, by whichever node, this one
	// included. A record that reaches its time to live just is not there any more.
	Changed(bucket, key string)
	// NodesChanged: a node has come, gone, or started to drain.
	NodesChanged(nodes []NodeInfo)
	// Link(false): this node has lost touch with the others; what it shares may
	// expire and others may take over its peers. Link(true): it is back, and whatever it
	// holds must be claimed and joined again (Claim.Held). The first call comes
	// with the first loss; Start returns with the link up.
	Link(up bool)
}

// CheckName says whether a peer id or a room name is within the limits.
func CheckName(what, name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("%s of %d bytes: %w", what, len(name), ErrTooLarge)
	}
	return nil
}

// CheckNodeName says whether a node name can be part of a NodeID and of
// channel names.
func CheckNodeName(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("node name %q: it has 1 to 64 characters", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("node name %q: it has letters, digits, hyphens, underscores and dots only", name)
		}
	}
	return nil
}
