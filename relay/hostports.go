package relay

import "math/bits"

// hostPorts are the ports of one address that are held, as a set of bits. table.mu guards it.
type hostPorts struct {
	count int
	words [1 << 16 / 64]uint64
}

func (h *hostPorts) set(port uint16) {
	h.words[port/64] |= 1 << (port % 64)
	h.count++
}

// clear reports whether none is left.
func (h *hostPorts) clear(port uint16) bool {
	h.words[port/64] &^= 1 << (port % 64)
	h.count--
	return h.count == 0
}

const evenBits = 0x5555555555555555

// free finds the first port that is not held, from a port on and round to it. With pair the port is even and the one above it
// is free too; both lie in one word then.
func (h *hostPorts) free(r PortRange, from uint16, even, pair bool) (uint16, bool) {
	first, last := int(r.Low)/64, int(r.High)/64
	at := int(from) / 64
	for i := range last - first + 2 { // the first word twice: what is above from, at the end what is below
		word := first + (at-first+i)%(last-first+1)
		free := ^h.words[word]
		if word == first {
			free &= ^uint64(0) << (r.Low % 64)
		}
		if word == last {
			free &= ^uint64(0) >> (63 - r.High%64)
		}
		if pair {
			free &= free >> 1
		}
		if even || pair {
			free &= evenBits
		}
		if i == 0 {
			free &= ^uint64(0) << (from % 64)
		}
		if free != 0 {
			return uint16(word*64 + bits.TrailingZeros64(free)), true
		}
	}
	return 0, false
}
