package relay

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
)

// writer builds one STUN message. What it appends to may be a reused buffer.
type writer struct{ b []byte }

// begin starts a message in buf's memory.
func begin(buf []byte, m method, c class, tx []byte) writer {
	b := append(buf[:0], make([]byte, stunHeader)...)
	binary.BigEndian.PutUint16(b, typeOf(m, c))
	binary.BigEndian.PutUint32(b[4:], magicCookie)
	copy(b[8:], tx)
	return writer{b}
}

// space appends an attribute of n bytes and returns where its value goes, zeroed.
func (w *writer) space(a attribute, n int) []byte {
	at := len(w.b)
	w.b = append(w.b, make([]byte, 4+pad4(n))...)
	binary.BigEndian.PutUint16(w.b[at:], uint16(a))
	binary.BigEndian.PutUint16(w.b[at+2:], uint16(n))
	binary.BigEndian.PutUint16(w.b[2:], uint16(len(w.b)-stunHeader))
	return w.b[at+4 : at+4+n]
}

func (w *writer) bytes(a attribute, v []byte) { copy(w.space(a, len(v)), v) }

func (w *writer) text(a attribute, v string) { copy(w.space(a, len(v)), v) }

func (w *writer) number(a attribute, v uint32) { binary.BigEndian.PutUint32(w.space(a, 4), v) }

// errorCode appends ERROR-CODE without a reason phrase, which machines do not read.
func (w *writer) errorCode(code int) {
	v := w.space(attrErrorCode, 4)
	v[2], v[3] = byte(code/100), byte(code%100)
}

// xor appends an XOR-…-ADDRESS.
func (w *writer) xor(a attribute, addr netip.AddrPort) {
	size := xorSize(addr.Addr())
	putXOR(w.space(a, size), addr, w.b[8:stunHeader])
}

func xorSize(a netip.Addr) int {
	if familyOf(a) == four {
		return 8
	}
	return 20
}

func putXOR(v []byte, addr netip.AddrPort, tx []byte) {
	mask := xorMask(tx)
	a := addr.Addr().Unmap()
	v[0], v[1] = 0, familyOf(a).wire()
	binary.BigEndian.PutUint16(v[2:], addr.Port()^magicCookie>>16)
	if a.Is4() {
		b := a.As4()
		for i := range b {
			v[4+i] = b[i] ^ mask[i]
		}
		return
	}
	b := a.As16()
	for i := range b {
		v[4+i] = b[i] ^ mask[i]
	}
}

func (w *writer) sign(key []byte) {
	at := len(w.b)
	v := w.space(attrMessageIntegrity, sha1.Size)
	copy(v, integrityOf(w.b, at, key))
}

func (w *writer) fingerprint() {
	at := len(w.b)
	v := w.space(attrFingerprint, 4)
	binary.BigEndian.PutUint32(v, fingerprintOf(w.b, at))
}
