package redis

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// sealer encrypts what Redis must not learn. The zero value marks values as
// plain and leaves them so.
type sealer struct{ aead cipher.AEAD }

const (
	markPlain  = 'p'
	markSealed = 's'
)

var errSealed = errors.New("bus: what is in Redis is sealed with another cluster secret, or not sealed at all: " +
	"give every node the same secret, or the nodes a --bus-prefix of their own")

func newSealer(secret []byte) (sealer, error) {
	if secret == nil {
		return sealer{}, nil
	}
	if len(secret) < 16 {
		return sealer{}, errors.New("bus: the cluster secret has fewer than 16 bytes")
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "callbox bus: values in Redis, 1", chacha20poly1305.KeySize)
	if err != nil {
		return sealer{}, fmt.Errorf("bus: cluster secret: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return sealer{}, fmt.Errorf("bus: cluster secret: %w", err)
	}
	return sealer{aead}, nil
}

// seal binds value to its place, so that Redis cannot move it elsewhere.
func (s sealer) seal(place string, value []byte) string {
	if s.aead == nil {
		return string(markPlain) + string(value)
	}
	out := make([]byte, 1+s.aead.NonceSize(), 1+s.aead.NonceSize()+len(value)+s.aead.Overhead())
	out[0] = markSealed
	nonce := out[1:]
	rand.Read(nonce) // never fails
	return string(s.aead.Seal(out, nonce, value, []byte(place)))
}

func (s sealer) open(place, sealed string) ([]byte, error) {
	switch {
	case s.aead == nil && len(sealed) > 0 && sealed[0] == markPlain:
		return []byte(sealed[1:]), nil
	case s.aead == nil || len(sealed) < 1+s.aead.NonceSize() || sealed[0] != markSealed:
		return nil, errSealed
	}
	n := 1 + s.aead.NonceSize()
	value, err := s.aead.Open([]byte{}, []byte(sealed[1:n]), []byte(sealed[n:]), []byte(place))
	if err != nil {
		return nil, errSealed
	}
	return value, nil
}
