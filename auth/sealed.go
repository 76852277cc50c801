package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrSealed says that a text was not sealed here, or for another purpose.
var ErrSealed = errors.New("not sealed by this server")

// Sealer encrypts what a browser is to keep for a while and neither to read nor
// to change. All nodes of a cluster open what one has sealed.
type Sealer struct {
	aead    cipher.AEAD
	purpose string
}

// NewSealer derives a key of its own for a purpose from the master secret.
func NewSealer(secret []byte, purpose string) (*Sealer, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "callbox sealed "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return &Sealer{aead: aead, purpose: purpose}, nil
}

// Seal returns base64url.
func (s *Sealer) Seal(text []byte) string {
	return encode(s.aead.Seal(nil, nil, text, []byte(s.purpose)))
}

// Open is the inverse of Seal: ErrSealed.
func (s *Sealer) Open(sealed string) ([]byte, error) {
	b, err := decode(sealed)
	if err != nil {
		return nil, ErrSealed
	}
	text, err := s.aead.Open(nil, nil, b, []byte(s.purpose))
	if err != nil {
		return nil, ErrSealed
	}
	return text, nil
}
