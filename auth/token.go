package auth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Bounds of room tokens, in bytes.
const (
	maxToken       = 4 << 10
	maxSubject     = 128
	maxDisplayName = 128
	maxRoom        = 64
)

// RoomToken is what a room token says: its bearer is Subject, and may enter
// Room until it expires. On the wire it is a JWT (RFC 7519) signed with HS256
// by an API key, with the claims sub, name (optional), room, exp and jti
// (optional), and the key's id in the header kid (optional).
type RoomToken struct {
	Subject string // the user, as the other program names them
	Name    string // to show to others; "" where the token has none
	Room    string
	Expires time.Time
	ID      string // jti, or a hash of the token where it has none
	Key     string // id of the API key that signed it
}

type roomClaims struct {
	jwt.RegisteredClaims
	Name string `json:"name,omitempty"`
	Room string `json:"room"`
}

// Mint signs a token with a key of ours; keyID "" is the newest key. ErrKey:
// there is no such key. ErrToken: what the token says is out of bounds.
func (k *Keys) Mint(keyID string, t RoomToken, now time.Time) (string, error) {
	records := k.records()
	if len(records) == 0 {
		return "", fmt.Errorf("%w: there is none; make one with: callbox key add NAME", ErrKey)
	}
	r := records[len(records)-1]
	if keyID != "" {
		var ok bool
		if r, ok = k.cache.get(keyID); !ok {
			return "", fmt.Errorf("%w: no key has the id %s", ErrKey, shown(keyID))
		}
	}
	return MintWith(r.ID, r.Secret, t, now)
}

// MintWith signs a token with a key that is given.
func MintWith(keyID, secret string, t RoomToken, now time.Time) (string, error) {
	claims := roomClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Subject: t.Subject, ID: t.ID,
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(t.Expires),
		},
		Name: t.Name, Room: t.Room,
	}
	if claims.ID == "" {
		claims.ID = encode(random(16))
	}
	if err := claims.check(); err != nil {
		return "", err
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["kid"] = keyID
	text, err := token.SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("room token: %w", err)
	}
	return text, nil
}

// Verify reads a token: ErrToken, wrapping ErrExpired where that is why.
func (k *Keys) Verify(token string, now time.Time) (RoomToken, error) {
	if len(token) > maxToken {
		return RoomToken{}, fmt.Errorf("%w: it is longer than %d bytes", ErrToken, maxToken)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(), jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(func() time.Time { return now }),
	)
	var unchecked roomClaims
	header, _, err := parser.ParseUnverified(token, &unchecked)
	if err != nil {
		return RoomToken{}, fmt.Errorf("%w: it is not a signed JWT", ErrToken)
	}
	if _, critical := header.Header["crit"]; critical {
		return RoomToken{}, fmt.Errorf("%w: it has a critical extension, and none is understood (RFC 7515, section 4.1.11)", ErrToken)
	}
	candidates, err := k.signers(header.Header["kid"])
	if err != nil {
		return RoomToken{}, err
	}
	for _, r := range candidates {
		var claims roomClaims
		_, err = parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return []byte(r.Secret), nil })
		if err == nil {
			return claims.token(token, r.ID)
		}
		// Other faults than the signature are found only with the right key.
		if !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
			break
		}
	}
	return RoomToken{}, tokenError(err)
}

// signers are the keys that may have signed a token: the one that kid names, or all.
func (k *Keys) signers(kid any) ([]keyRecord, error) {
	switch id := kid.(type) {
	case nil:
		if all := k.records(); len(all) > 0 {
			return all[:min(len(all), maxKeys)], nil
		}
		return nil, fmt.Errorf("%w: there are no API keys", ErrToken)
	case string:
		if r, ok := k.cache.get(id); ok {
			return []keyRecord{r}, nil
		}
	}
	return nil, fmt.Errorf("%w: kid names no API key", ErrToken)
}

// tokenError says why without repeating anything from the token.
func tokenError(err error) error {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return fmt.Errorf("%w: it %w", ErrToken, ErrExpired)
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return fmt.Errorf("%w: its time has not come", ErrToken)
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return fmt.Errorf("%w: it has no exp", ErrToken)
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return fmt.Errorf("%w: it is not signed with HS256 by an API key", ErrToken)
	}
	return fmt.Errorf("%w: it is malformed", ErrToken)
}

func (c roomClaims) check() error {
	switch {
	case !printable(c.Subject, maxSubject):
		return fmt.Errorf("%w: sub must have 1 to %d bytes of printable text", ErrToken, maxSubject)
	case c.Name != "" && !printable(c.Name, maxDisplayName):
		return fmt.Errorf("%w: name must have at most %d bytes of printable text", ErrToken, maxDisplayName)
	case !printable(c.Room, maxRoom):
		return fmt.Errorf("%w: room must have 1 to %d bytes of printable text", ErrToken, maxRoom)
	case strings.HasPrefix(c.Room, "@"):
		return fmt.Errorf("%w: room names do not begin with @", ErrToken)
	case len(c.ID) > maxSubject:
		return fmt.Errorf("%w: jti must have at most %d bytes", ErrToken, maxSubject)
	}
	return nil
}

func (c roomClaims) token(text, key string) (RoomToken, error) {
	if err := c.check(); err != nil {
		return RoomToken{}, err
	}
	t := RoomToken{Subject: c.Subject, Name: c.Name, Room: c.Room, Expires: c.ExpiresAt.Time, ID: c.ID, Key: key}
	if t.ID == "" {
		sum := sha256.Sum256([]byte(text))
		t.ID = encode(sum[:16])
	}
	return t, nil
}
