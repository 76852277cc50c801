package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// TURN issues and verifies the credentials of draft-uberti-behave-turn-rest-00:
// the user name is "expiry:handle", the password base64(HMAC-SHA1(secret, user
// name)). They need no state, and any program that knows a secret can issue them.
type TURN struct {
	Secrets [][]byte // the first issues, all verify
	Realm   string
	// Revoked says whether a handle of this system's own may make no more
	// allocations; nil: none is revoked.
	Revoked func(userTag, sessionTag string, now time.Time) bool
}

// maxTURNUsername is the longest USERNAME attribute, in bytes (RFC 8489, section 14.3).
const maxTURNUsername = 508

// MaxHandleLife is the longest life that a credential for a handle of ours may
// have, so that its revocation need not be remembered for longer.
const MaxHandleLife = 366 * 24 * time.Hour

// tagBytes of HMAC become a tag of 12 characters: enough that no two users of
// one system meet.
const tagBytes = 9

// Credential issues a credential for a handle. ttl is counted in whole seconds.
func (t TURN) Credential(handle string, ttl time.Duration, now time.Time) (username, password string, expires time.Time) {
	expires = now.Add(ttl).Truncate(time.Second)
	username = strconv.FormatInt(expires.Unix(), 10) + ":" + handle
	return username, turnPassword(t.Secrets[0], username), expires
}

func turnPassword(secret []byte, username string) string {
	h := hmac.New(sha1.New, secret)
	h.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// Keys returns the long-term keys (RFC 8489, section 9.2.2) that are good for a
// user name, one for each secret, the newest first, and the tags of its owner.
// Whether one of the keys signed the request is for the caller to see.
//
// Expiry and revocation count only where allocate is true: a call that is up
// does not die with its credential. Errors: ErrUsername, ErrRealm, ErrExpired, ErrRevoked.
func (t TURN) Keys(username, realm string, allocate bool, now time.Time) (keys [][]byte, userTag, sessionTag string, err error) {
	expires, handle, err := parseTURNUsername(username)
	if err != nil {
		return nil, "", "", err
	}
	if realm != t.Realm {
		return nil, "", "", ErrRealm
	}
	userTag, sessionTag = parseHandle(handle)
	if allocate {
		if !now.Before(expires) {
			return nil, "", "", fmt.Errorf("TURN credential %w", ErrExpired)
		}
		if t.Revoked != nil && t.Revoked(userTag, sessionTag, now) {
			return nil, "", "", fmt.Errorf("TURN credential %w", ErrRevoked)
		}
	}
	keys = make([][]byte, len(t.Secrets))
	for i, secret := range t.Secrets {
		sum := md5.Sum([]byte(username + ":" + realm + ":" + turnPassword(secret, username)))
		keys[i] = sum[:]
	}
	return keys, userTag, sessionTag, nil
}

func parseTURNUsername(username string) (expires time.Time, handle string, err error) {
	if len(username) > maxTURNUsername {
		return time.Time{}, "", ErrUsername
	}
	digits, handle, _ := strings.Cut(username, ":")
	// 11 digits last until the year 5138.
	if digits == "" || len(digits) > 11 || strings.Trim(digits, "0123456789") != "" {
		return time.Time{}, "", ErrUsername
	}
	seconds, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return time.Time{}, "", ErrUsername
	}
	return time.Unix(seconds, 0), handle, nil
}

// Handle is what stands for a user's session in TURN user names:
// userTag.sessionTag. secret is the master secret; session is a Session.ID, or
// any other text that names the session.
func Handle(secret []byte, user, session string) string {
	return userTag(secret, user) + "." + sessionTag(secret, session)
}

// UserTag is the first part of the handles of a user.
func UserTag(secret []byte, user string) string { return userTag(secret, user) }

// SessionTag is the second part of the handle of a session.
func SessionTag(secret []byte, session string) string { return sessionTag(secret, session) }

func userTag(secret []byte, user string) string {
	return encode(mac(secret, "callbox turn user", foldName(user))[:tagBytes])
}

// sessionTag ends with the time at which a session was issued, where its id
// says so: ending all sessions of a user must leave those alone that begin later.
func sessionTag(secret []byte, session string) string {
	tag := mac(secret, "callbox turn session", session)[:tagBytes]
	if id, err := decode(session); err == nil && len(id) == sessionIDBytes {
		tag = append(tag, id[:stampBytes]...)
	}
	return encode(tag)
}

// sessionTagTime reads the time from a session tag.
func sessionTagTime(tag string) (time.Time, bool) {
	b, err := decode(tag)
	if err != nil || len(b) != tagBytes+stampBytes {
		return time.Time{}, false
	}
	return unstamp(b[tagBytes:]), true
}

// parseHandle splits a handle of ours. A handle of another program is its own user tag.
func parseHandle(handle string) (user, session string) {
	user, session, ok := strings.Cut(handle, ".")
	if ok && isTag(user, tagBytes) && (isTag(session, tagBytes) || isTag(session, tagBytes+stampBytes)) {
		return user, session
	}
	return handle, ""
}

func isTag(s string, n int) bool {
	b, err := decode(s)
	return err == nil && len(b) == n
}
