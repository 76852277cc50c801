package relay

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
)

// The parts of RFC 8489 that a relay needs, read from and written to plain byte slices.

const (
	stunHeader  = 20
	magicCookie = 0x2112A442
	txSize      = 12
)

type class uint16

const (
	classRequest    class = 0x000
	classIndication class = 0x010
	classSuccess    class = 0x100
	classError      class = 0x110
	classMask             = 0x110
)

type method uint16

const (
	methodBinding          method = 0x001
	methodAllocate         method = 0x003
	methodRefresh          method = 0x004
	methodSend             method = 0x006
	methodData             method = 0x007
	methodCreatePermission method = 0x008
	methodChannelBind      method = 0x009
)

type attribute uint16

const (
	attrMappedAddress           attribute = 0x0001
	attrUsername                attribute = 0x0006
	attrMessageIntegrity        attribute = 0x0008
	attrErrorCode               attribute = 0x0009
	attrUnknownAttributes       attribute = 0x000A
	attrChannelNumber           attribute = 0x000C
	attrLifetime                attribute = 0x000D
	attrXORPeerAddress          attribute = 0x0012
	attrData                    attribute = 0x0013
	attrRealm                   attribute = 0x0014
	attrNonce                   attribute = 0x0015
	attrXORRelayedAddress       attribute = 0x0016
	attrRequestedAddressFamily  attribute = 0x0017
	attrEvenPort                attribute = 0x0018
	attrRequestedTransport      attribute = 0x0019
	attrDontFragment            attribute = 0x001A
	attrMessageIntegrity256     attribute = 0x001C
	attrXORMappedAddress        attribute = 0x0020
	attrReservationToken        attribute = 0x0022
	attrAdditionalAddressFamily attribute = 0x8000
	attrAddressErrorCode        attribute = 0x8001
	attrFingerprint             attribute = 0x8028

	// coturn and its clients ask for a dual allocation by the number of a draft; nobody else was given it.
	attrAdditionalAddressFamilyDraft attribute = 0x8032
)

// understood says whether a comprehension-required attribute means something to this server.
func (a attribute) understood() bool {
	switch a {
	case attrMappedAddress, attrUsername, attrMessageIntegrity, attrErrorCode, attrUnknownAttributes, attrChannelNumber,
		attrLifetime, attrXORPeerAddress, attrData, attrRealm, attrNonce, attrXORRelayedAddress,
		attrRequestedAddressFamily, attrEvenPort, attrRequestedTransport, attrDontFragment, attrMessageIntegrity256,
		attrXORMappedAddress, attrReservationToken:
		return true
	}
	return a >= 0x8000
}

var errMalformed = errors.New("malformed STUN message")

// message is a parsed STUN message. It points into the bytes it was parsed from.
type message struct {
	raw         []byte
	class       class
	method      method
	body        []byte // the attributes that count: those before MESSAGE-INTEGRITY
	integrity   int    // where MESSAGE-INTEGRITY starts in raw; 0: there is none
	fingerprint bool   // there is a FINGERPRINT, and it is right
}

func (m *message) tx() []byte { return m.raw[8:stunHeader] }

// looksLikeSTUN tells a STUN message from ChannelData by its first two bits.
func looksLikeSTUN(b []byte) bool { return len(b) > 0 && b[0]&0xC0 == 0 }

// parse reads a message and checks what RFC 8489 section 6.3 asks before anything else, FINGERPRINT included.
func parse(b []byte) (message, error) {
	if len(b) < stunHeader || !looksLikeSTUN(b) || binary.BigEndian.Uint32(b[4:]) != magicCookie {
		return message{}, errMalformed
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length%4 != 0 || stunHeader+length != len(b) {
		return message{}, errMalformed
	}
	t := binary.BigEndian.Uint16(b)
	m := message{raw: b, class: class(t & classMask), method: methodOf(t)}
	end := len(b) // of the attributes that count
	for at := stunHeader; at < len(b); {
		if len(b)-at < 4 {
			return message{}, errMalformed
		}
		size := int(binary.BigEndian.Uint16(b[at+2:]))
		if len(b)-at-4 < size {
			return message{}, errMalformed
		}
		switch a := attribute(binary.BigEndian.Uint16(b[at:])); {
		case m.fingerprint:
			return message{}, errMalformed // FINGERPRINT is the last attribute
		case a == attrFingerprint:
			if size != 4 || binary.BigEndian.Uint32(b[at+4:]) != fingerprintOf(b, at) {
				return message{}, errMalformed
			}
			m.fingerprint = true
			end = min(end, at)
		case a == attrMessageIntegrity && m.integrity == 0:
			if size != sha1.Size {
				return message{}, errMalformed
			}
			m.integrity = at
			end = min(end, at)
		}
		at += 4 + pad4(size)
	}
	m.body = b[stunHeader:end]
	return m, nil
}

// get returns the value of the first such attribute.
func (m *message) get(want attribute) ([]byte, bool) {
	var value []byte
	found := false
	m.each(func(a attribute, v []byte) bool {
		if a == want {
			value, found = v, true
		}
		return !found
	})
	return value, found
}

// each calls f for the attributes that count, until it returns false.
func (m *message) each(f func(attribute, []byte) bool) {
	for b := m.body; len(b) >= 4; {
		size := int(binary.BigEndian.Uint16(b[2:]))
		if !f(attribute(binary.BigEndian.Uint16(b)), b[4:4+size]) {
			return
		}
		b = b[min(len(b), 4+pad4(size)):]
	}
}

// unknown lists the comprehension-required attributes that this server does not understand, at most sixteen.
func (m *message) unknown() []attribute {
	var list []attribute
	m.each(func(a attribute, _ []byte) bool {
		if !a.understood() {
			list = append(list, a)
		}
		return len(list) < 16
	})
	return list
}

// authentic checks MESSAGE-INTEGRITY against a key.
func (m *message) authentic(key []byte) bool {
	return m.integrity != 0 && hmac.Equal(integrityOf(m.raw, m.integrity, key), m.raw[m.integrity+4:m.integrity+4+sha1.Size])
}

// integrityOf computes MESSAGE-INTEGRITY as if it stood at the given place (RFC 8489 section 14.5): the length field counts
// up to its end, whatever follows.
func integrityOf(raw []byte, at int, key []byte) []byte {
	h := hmac.New(sha1.New, key)
	var length [2]byte
	binary.BigEndian.PutUint16(length[:], uint16(at+4+sha1.Size-stunHeader))
	h.Write(raw[:2])
	h.Write(length[:])
	h.Write(raw[4:at])
	return h.Sum(nil)
}

// fingerprintOf computes FINGERPRINT as if it stood at the given place; the length field counts it already (section 14.7).
func fingerprintOf(raw []byte, at int) uint32 {
	return crc32.ChecksumIEEE(raw[:at]) ^ 0x5354554e
}

// methodOf takes the method out of a message type, where the class bits are woven in (section 5).
func methodOf(t uint16) method {
	return method(t&0x000F | t&0x00E0>>1 | t&0x3E00>>2)
}

func typeOf(m method, c class) uint16 {
	return uint16(m)&0x000F | uint16(m)&0x0070<<1 | uint16(m)&0x0F80<<2 | uint16(c)
}

func pad4(n int) int { return (n + 3) &^ 3 }

// xorAddress decodes an XOR-…-ADDRESS value of the message.
func xorAddress(v, tx []byte) (netip.AddrPort, bool) {
	if len(v) < 8 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(v[2:]) ^ magicCookie>>16
	mask := xorMask(tx)
	switch {
	case v[1] == wireFour && len(v) == 8:
		var a [4]byte
		for i := range a {
			a[i] = v[4+i] ^ mask[i]
		}
		return netip.AddrPortFrom(netip.AddrFrom4(a), port), true
	case v[1] == wireSix && len(v) == 20:
		var a [16]byte
		for i := range a {
			a[i] = v[4+i] ^ mask[i]
		}
		return netip.AddrPortFrom(netip.AddrFrom16(a), port), true
	}
	return netip.AddrPort{}, false
}

func xorMask(tx []byte) (mask [16]byte) {
	binary.BigEndian.PutUint32(mask[:], magicCookie)
	copy(mask[4:], tx)
	return mask
}
