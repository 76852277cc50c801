package signal

import (
	"callbox/bus"
)

// Keys of log attributes.
const (
	logError = "error"
	logNode  = "node"
	logPeer  = "peer"
	logRoom  = "room"
	logUser  = "user"
)

// Message is one packet from another hub.
func (h *Hub) Message(from bus.NodeID, data []byte) {
	p, err := decodePacket(data)
	if err != nil {
		h.log.Debug("packet not understood", logNode, from, logError, err)
		return
	}
	if p.node == "" {
		p.node = from
	}
	switch p.kind {
	case pkSignal, pkCastTo:
		h.arrive(&p)
	case pkCast:
		h.cast(&p)
	case pkUndeliverable:
		h.undelivered(&p)
	case pkJoined, pkLeft:
		h.presence(from, &p)
	case pkTake:
		h.taken(from, &p)
	case pkState:
		h.stateArrived(&p)
	case pkRing:
		h.ringHere(from, &p)
	case pkRingOver:
		h.ringOverHere(&p)
	case pkAnswer:
		h.answered(&p)
	case pkWon:
		h.won(&p)
	case pkHere:
		h.release(p.peer, from)
	case pkStray:
		h.strayed(from, &p)
	case pkGroup:
		h.groupFull(p.room, p.n)
	case pkRoll:
		h.rollCalled(from, &p)
	}
}

// Lost is one of our packets that came back.
func (h *Hub) Lost(to bus.NodeID, data []byte, why error) {
	p, err := decodePacket(data)
	if err != nil {
		return
	}
	if p.node == "" {
		p.node = h.self
	}
	switch p.kind {
	case pkSignal, pkCastTo:
		h.seek(to, p)
	case pkCast:
		h.lostCast(to, &p)
	case pkTake:
		p.sid = 0 // there is no state
		h.stateArrived(&p)
	case pkAnswer:
		h.callerLost(&p)
	default:
		h.log.Debug("packet lost", logNode, to, logError, why)
	}
}
