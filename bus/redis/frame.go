package redis

import (
	"encoding/binary"
	"errors"

	"callbox/bus"
)

// A frame is one publication from node to node: what has gathered since the
// last one, and a receipt for what came the other way.
//
//	version  1 byte
//	flags    1 byte
//	from     string; the sending node
//	term     the sender's term, which names the channel for answers
//	stream   of the sender's messages; a higher one starts anew
//	base     the lowest number that may still come; what is below is settled
//	first    number of the first message in the frame, or of the next to come
//	ackStream, ack  receipt: all up to ack of that stream has been delivered
//	count    of messages, each a string
//
// Numbers are unsigned varints, strings a length and bytes.
type frame struct {
	flags     byte
	from      bus.NodeID
	term      uint64
	stream    uint64
	base      uint64
	first     uint64
	ackStream uint64
	ack       uint64
	messages  [][]byte

	doubt uint64 // link.doubt before; not published
}

const (
	frameVersion = 1

	flagProbe = 1 << 0 // a receipt is wanted at once
	flagGap   = 1 << 1 // the receipt is not all that was sent: send again from there
)

var errFrame = errors.New("bus: malformed message from a node")

func (f *frame) append(b []byte) []byte {
	b = append(b, frameVersion, f.flags)
	b = binary.AppendUvarint(b, uint64(len(f.from)))
	b = append(b, f.from...)
	for _, n := range [...]uint64{f.term, f.stream, f.base, f.first, f.ackStream, f.ack, uint64(len(f.messages))} {
		b = binary.AppendUvarint(b, n)
	}
	for _, m := range f.messages {
		b = binary.AppendUvarint(b, uint64(len(m)))
		b = append(b, m...)
	}
	return b
}

// parseFrame cuts data up; the messages are copies.
func parseFrame(data string) (frame, error) {
	if len(data) < 2 || data[0] != frameVersion {
		return frame{}, errFrame
	}
	b := []byte(data)
	f := frame{flags: b[1]}
	b = b[2:]
	number := func() (n uint64, ok bool) {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return 0, false
		}
		b = b[size:]
		return n, true
	}
	text := func() (s []byte, ok bool) {
		n, ok := number()
		if !ok || n > uint64(len(b)) {
			return nil, false
		}
		s, b = b[:n:n], b[n:]
		return s, true
	}
	from, ok := text()
	if !ok || len(from) == 0 {
		return frame{}, errFrame
	}
	f.from = bus.NodeID(from)
	var count uint64
	for _, p := range [...]*uint64{&f.term, &f.stream, &f.base, &f.first, &f.ackStream, &f.ack, &count} {
		if *p, ok = number(); !ok {
			return frame{}, errFrame
		}
	}
	// Every message takes a byte at least, so this bounds the allocation.
	if count > uint64(len(b)) || f.base > f.first || f.first > 1<<62 {
		return frame{}, errFrame
	}
	f.messages = make([][]byte, 0, count)
	for range count {
		m, ok := text()
		if !ok {
			return frame{}, errFrame
		}
		f.messages = append(f.messages, m)
	}
	if len(b) != 0 {
		return frame{}, errFrame
	}
	return f, nil
}
