package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
)

// A cookie value is "v1." body "." signature, both base64url. The body is the
// session's id, its end in milliseconds, and the user's name; the signature is
// HMAC-SHA-256 over everything before it.
const (
	sessionVersion = "v1"
	stampBytes     = 6  // milliseconds since 1970, big endian
	sessionRandom  = 16 // bytes: 128 bits
	sessionIDBytes = stampBytes + sessionRandom
	maxCookie      = 512 // bytes
)

// Session is one login.
type Session struct {
	User    string // a user's name, or Guest.SessionUser
	ID      string // when it was issued and 128 random bits, base64url
	Issued  time.Time
	Expires time.Time
}

// Sessions issues and verifies the values of session cookies. It keeps no list
// of sessions, only of what has been revoked before its time.
type Sessions struct {
	key     []byte
	ttl     time.Duration
	revoked *revocations
}

// OpenSessions reads the revocations from the store. secret is the master
// secret; ttl is how long a login lasts.
func OpenSessions(ctx context.Context, store Store, secret []byte, ttl time.Duration) (*Sessions, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "callbox session cookie v1", 32)
	if err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	s := &Sessions{key: key, ttl: ttl, revoked: newRevocations(store, secret)}
	if err := s.Reload(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads all revocations anew, for when news of changes may have been missed.
func (s *Sessions) Reload(ctx context.Context) error { return s.revoked.cache.reloadAll(ctx) }

// Changed reads one revocation anew, after news of a change of its record.
func (s *Sessions) Changed(ctx context.Context, key string) error {
	return s.revoked.cache.reload(ctx, key)
}

// NewSessionID makes the id of a session that begins now.
func NewSessionID(now time.Time) string {
	return encode(append(stamp(now), random(sessionRandom)...))
}

// Issue makes a session for a user and the cookie value that stands for it.
func (s *Sessions) Issue(user string, now time.Time) (string, Session) {
	return s.IssueUntil(user, now, now.Add(s.ttl))
}

// IssueUntil is Issue with an end of the caller's.
func (s *Sessions) IssueUntil(user string, now, until time.Time) (string, Session) {
	session := Session{User: user, ID: NewSessionID(now), Issued: now.Truncate(time.Millisecond), Expires: until.Truncate(time.Millisecond)}
	return s.value(session), session
}

// value is the cookie value of a session.
func (s *Sessions) value(session Session) string {
	id, err := decode(session.ID)
	if err != nil {
		panic("auth: a session id made here does not decode: " + err.Error())
	}
	body := append(append(id, stamp(session.Expires)...), session.User...)
	value := sessionVersion + "." + encode(body)
	return value + "." + encode(s.sign(value))
}

// Verify reads a cookie value: ErrSession, wrapping ErrExpired or ErrRevoked where that is why.
func (s *Sessions) Verify(value string, now time.Time) (Session, error) {
	if len(value) > maxCookie {
		return Session{}, ErrSession
	}
	signed, signature, ok := cutLast(value, '.')
	if !ok {
		return Session{}, ErrSession
	}
	given, err := decode(signature)
	if err != nil || !hmac.Equal(given, s.sign(signed)) {
		return Session{}, ErrSession
	}
	version, text, _ := strings.Cut(signed, ".")
	body, err := decode(text)
	if err != nil || version != sessionVersion || len(body) < sessionIDBytes+stampBytes {
		return Session{}, ErrSession
	}
	session := Session{
		ID:      encode(body[:sessionIDBytes]),
		Issued:  unstamp(body),
		Expires: unstamp(body[sessionIDBytes:]),
		User:    string(body[sessionIDBytes+stampBytes:]),
	}
	if !now.Before(session.Expires) {
		return Session{}, fmt.Errorf("%w: %w", ErrSession, ErrExpired)
	}
	if s.revoked.session(session, now) {
		return Session{}, fmt.Errorf("%w: %w", ErrSession, ErrRevoked)
	}
	return session, nil
}

// Revoke ends one session. The record of it is kept until the session would
// have ended by itself.
func (s *Sessions) Revoke(ctx context.Context, session Session, now time.Time) error {
	return s.revoked.add(ctx, revokedSession+sessionTag(s.revoked.secret, session.ID), now, session.Expires.Sub(now))
}

// RevokeUser ends all sessions of a user that have begun by now, and the TURN
// handles made for the user outside of sessions. The record of it is kept for
// MaxHandleLife: there is one for a user at most.
func (s *Sessions) RevokeUser(ctx context.Context, user string, now time.Time) error {
	return s.revoked.add(ctx, revokedUser+userTag(s.revoked.secret, user), now, max(s.ttl, MaxHandleLife))
}

// Revoked says whether what hangs on a session, be it a connection or a TURN
// credential, has ended: the question of RevokedHandle, by names.
func (s *Sessions) Revoked(user, session string, now time.Time) bool {
	return s.revoked.handle(userTag(s.revoked.secret, user), sessionTag(s.revoked.secret, session), now)
}

// RevokedHandle says whether the TURN handle of a session, as Handle makes it,
// belongs to a session that was revoked.
func (s *Sessions) RevokedHandle(userTag, sessionTag string, now time.Time) bool {
	return s.revoked.handle(userTag, sessionTag, now)
}

func (s *Sessions) sign(text string) []byte { return mac(s.key, sessionVersion, text) }

func stamp(t time.Time) []byte {
	ms := uint64(t.UnixMilli())
	return []byte{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms)}
}

func unstamp(b []byte) time.Time {
	var ms int64
	for _, c := range b[:stampBytes] {
		ms = ms<<8 | int64(c)
	}
	return time.UnixMilli(ms)
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}
