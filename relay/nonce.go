package relay

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// nonces makes and checks nonces without remembering any. A nonce is the second it was made in and a MAC over that second and
// the client's five-tuple: 12 bytes, 16 characters. It is worth nothing to another address.
type nonces struct {
	key  [32]byte
	life time.Duration
}

const (
	nonceSize = 12
	nonceText = 16
)

func newNonces(life time.Duration) *nonces {
	n := &nonces{life: life}
	rand.Read(n.key[:]) // never fails
	return n
}

func (n *nonces) issue(c *client, now time.Time) [nonceText]byte {
	var raw [nonceSize]byte
	binary.BigEndian.PutUint32(raw[:], uint32(now.Unix()))
	n.mac(raw[:4], c, raw[4:])
	var text [nonceText]byte
	base64.RawURLEncoding.Encode(text[:], raw[:])
	return text
}

// valid says whether the nonce was issued to this client and is not too old.
func (n *nonces) valid(text []byte, c *client, now time.Time) bool {
	var raw [nonceSize]byte
	if len(text) != nonceText {
		return false
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(raw[:], text); err != nil {
		return false
	}
	var mac [nonceSize - 4]byte
	n.mac(raw[:4], c, mac[:])
	if !hmac.Equal(mac[:], raw[4:]) {
		return false
	}
	// Unsigned seconds wrap in 2106; so does the difference, rightly.
	age := uint32(now.Unix()) - binary.BigEndian.Uint32(raw[:])
	return time.Duration(age)*time.Second <= n.life
}

func (n *nonces) mac(second []byte, c *client, out []byte) {
	h := hmac.New(sha256.New, n.key[:])
	h.Write(second)
	address := c.remote.Addr().As16()
	h.Write(address[:])
	h.Write([]byte{byte(c.remote.Port() >> 8), byte(c.remote.Port()), byte(c.transport)})
	copy(out, h.Sum(nil))
}
