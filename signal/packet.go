package signal

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"time"

	"callbox/bus"
)

// packetKind is what one hub says to another.
type packetKind uint8

const (
	pkSignal        packetKind = iota + 1 // from -> to, id, data, sid, n, prev; to a name: version (the sender's count) and time (to wait until)
	pkCast                                // from -> everyone in room on the receiving node
	pkCastTo                              // the same for one peer that has moved
	pkUndeliverable                       // to a sender: peer could not be reached, id, reason
	pkJoined                              // room, version, from: the relay, peer, user, name, epoch, sid: digest of the members
	pkLeft                                // the same, reason
	pkTake                                // give me the session of peer, which I hold with epoch now
	pkState                               // the session of peer: part n of total prev; sid 0: there is none
	pkRing                                // call, from, user, name, to (the user who is called), room, time
	pkRingOver                            // call, to (the user), reason, peer: except this one
	pkAnswer                              // call, to (the caller's peer id), peer, user, name, reason: accepted or declined
	pkWon                                 // call, to (the peer that accepted), room
	pkHere                                // peer, for which the receiver keeps messages, is on the sending node now
	pkStray                               // peer is not on the sending node; with to, the rest is a pkSignal handed back
	pkGroup                               // room, n: the groups of a matchbox room below n are full
	pkRoll                                // peer, user, name, epoch, room, reason: who came or left, for nodes that watch rooms
	packetKinds
)

// packetVersion is the first byte on the wire; adjacent releases understand each other.
const packetVersion = 1

// packet is one message between hubs. Which fields count depends on kind. data aliases what was
// decoded and is never looked into.
type packet struct {
	kind                               packetKind
	to, from, room, id                 string
	peer, user, name, call, reason     string
	node                               bus.NodeID
	sid, n, prev, epoch, version, time uint64
	data                               []byte
}

var errPacket = errors.New("signal: malformed message from another node")

func (p *packet) strings() [10]*string {
	return [...]*string{&p.to, &p.from, &p.room, &p.id, &p.peer, &p.user, &p.name, &p.call, &p.reason, (*string)(&p.node)}
}

func (p *packet) numbers() [6]*uint64 {
	return [...]*uint64{&p.sid, &p.n, &p.prev, &p.epoch, &p.version, &p.time}
}

// encode: version, kind, bit set of strings that follow, bit set of numbers, length of
// the strings, their lengths and numbers as uvarints, the strings, data.
func (p *packet) encode() []byte {
	strs, nums := p.strings(), p.numbers()
	size := 0
	var ss, ns uint16
	for i, s := range strs {
		if *s != "" {
			ss |= 1 << i
			size += len(*s)
		}
	}
	for i, n := range nums {
		if *n != 0 {
			ns |= 1 << i
		}
	}
	b := make([]byte, 0, 16+size+3*bits.OnesCount16(ss)+10*bits.OnesCount16(ns)+len(p.data))
	b = append(b, packetVersion, byte(p.kind))
	b = binary.AppendUvarint(b, uint64(ss))
	b = binary.AppendUvarint(b, uint64(ns))
	for _, n := range nums {
		if *n != 0 {
			b = binary.AppendUvarint(b, *n)
		}
	}
	for _, s := range strs {
		if *s != "" {
			b = binary.AppendUvarint(b, uint64(len(*s)))
		}
	}
	for _, s := range strs {
		b = append(b, *s...)
	}
	return append(b, p.data...)
}

// decodePacket reads what encode wrote. A later release may say more kinds; they are
// an error here and ignored by the caller.
func decodePacket(b []byte) (packet, error) {
	var p packet
	if len(b) < 4 || b[0] != packetVersion || b[1] == 0 || b[1] >= byte(packetKinds) {
		return p, errPacket
	}
	p.kind = packetKind(b[1])
	b = b[2:]
	bad := false
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	strs, nums := p.strings(), p.numbers()
	ss, ns := uvarint(), uvarint()
	if bad || ss >= 1<<len(strs) || ns >= 1<<len(nums) {
		return p, errPacket
	}
	for i, n := range nums {
		if ns&(1<<i) != 0 {
			*n = uvarint()
		}
	}
	var lens [10]uint64
	total := uint64(0)
	for i := range strs {
		if ss&(1<<i) != 0 {
			lens[i] = uvarint()
			if lens[i] > uint64(len(b)) {
				return p, errPacket
			}
			total += lens[i]
		}
	}
	if bad || total > uint64(len(b)) {
		return p, errPacket
	}
	text := string(b[:total]) // one allocation for all strings
	p.data = b[total:]
	for i, s := range strs {
		*s, text = text[:lens[i]], text[lens[i]:]
	}
	return p, nil
}

func (p *packet) who() person { return person{p.peer, p.user, p.name} }

func stamp(t time.Time) uint64   { return uint64(max(t.UnixMilli(), 0)) }
func unstamp(v uint64) time.Time { return time.UnixMilli(int64(min(v, 1<<52))) }
