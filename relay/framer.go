package relay

import (
	"encoding/binary"
	"errors"

	"callbox/relay/internal/udp"
)

// framer cuts a stream of STUN and ChannelData messages (RFC 8656 section 2.1 and 12.5) into frames.
type framer struct {
	buf        []byte
	start, end int // what has been read and not yet cut
}

var errFrame = errors.New("not a STUN or ChannelData message")

const (
	// maxFrame fits the longest datagram in a Send indication.
	maxFrame = udp.MaxDatagram + 64
	// firstBuffer is enough for everything but data.
	firstBuffer = 2 << 10
	// fullBuffer is what a stream's buffer grows to when it carries much.
	fullBuffer = 32 << 10
)

// frameSize is the size of the frame that b starts with, padding included; 0 if b is too short to tell. A length that no
// message of a client has is an error: after it nothing can be found in the stream any more.
func frameSize(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if !looksLikeSTUN(b) && !isChannelData(b) {
		return 0, errFrame
	}
	if len(b) < 4 {
		return 0, nil
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	size := channelHeader + pad4(length)
	if looksLikeSTUN(b) {
		size = stunHeader + length
		if length%4 != 0 || len(b) >= 8 && binary.BigEndian.Uint32(b[4:]) != magicCookie {
			return 0, errFrame
		}
	}
	if size > maxFrame {
		return 0, errFrame
	}
	return size, nil
}

// cut cuts the frame that b starts with; nil: more must be read.
func cut(b []byte) (frame, rest []byte, err error) {
	size, err := frameSize(b)
	if err != nil || size == 0 || size > len(b) {
		return nil, b, err
	}
	return b[:size:size], b[size:], nil
}

// unread is what has been read and not yet cut. It is the caller's until space is called.
func (f *framer) unread() []byte { return f.buf[f.start:f.end] }

// left says that only the last n bytes are unread still.
func (f *framer) left(n int) { f.start = f.end - n }

// space returns where to read into, never empty. It moves what is left over to the front.
func (f *framer) space() []byte {
	grow := f.end == len(f.buf) && f.start == 0 || len(f.buf) == 0
	f.end = copy(f.buf, f.buf[f.start:f.end])
	f.start = 0
	if size, _ := frameSize(f.buf[:f.end]); grow || size > len(f.buf) {
		larger := make([]byte, min(max(2*len(f.buf), size, firstBuffer), fullBuffer))
		copy(larger, f.buf[:f.end])
		f.buf = larger
	}
	return f.buf[f.end:]
}

// filled says how much was read into the space.
func (f *framer) filled(n int) { f.end += n }
