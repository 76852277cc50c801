package auth

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// maxGuestName is the longest name that a guest may give, in bytes.
const maxGuestName = 128

// guestKind begins the session user and the shown user of a guest. No user's
// name has a colon.
const guestKind = "guest:"

// ErrGuestName says that a name cannot be a guest's.
var ErrGuestName = fmt.Errorf("a name has 1 to %d bytes of printable text", maxGuestName)

// Guest is somebody whom an invite has let in. Nothing of guests is stored:
// they are what their session's cookie says.
type Guest struct {
	ID     string // 16 hexadecimal digits, random
	Invite string // Invite.ID
	Name   string // as the guest wants to be called
}

// NewGuest makes a guest of an invite: ErrGuestName.
func NewGuest(invite, name string) (Guest, error) {
	name = strings.TrimSpace(name)
	if !printable(name, maxGuestName) {
		return Guest{}, ErrGuestName
	}
	return Guest{ID: hex.EncodeToString(random(8)), Invite: invite, Name: name}, nil
}

// User is the guest as signaling names people: never a user's name.
func (g Guest) User() string { return guestKind + g.ID }

// SessionUser is the Session.User that stands for the guest.
func (g Guest) SessionUser() string { return guestKind + g.ID + ":" + g.Invite + ":" + g.Name }

// ParseGuest is the inverse of SessionUser; ok is false for the session of anybody else.
func ParseGuest(sessionUser string) (g Guest, ok bool) {
	rest, ok := strings.CutPrefix(sessionUser, guestKind)
	if !ok {
		return Guest{}, false
	}
	parts := strings.SplitN(rest, ":", 3)
	if len(parts) != 3 {
		return Guest{}, false
	}
	return Guest{ID: parts[0], Invite: parts[1], Name: parts[2]}, true
}

// InviteSession is the session text, for Handle, of all guests of an invite:
// they lose their relays together, with the invite. A session id has no colon,
// so it is nobody's session.
func InviteSession(id string) string { return "invite:" + id }

// RevokeInvite ends the sessions of all guests of an invite that was removed.
func (s *Sessions) RevokeInvite(ctx context.Context, i Invite, now time.Time) error {
	return s.Revoke(ctx, Session{ID: InviteSession(i.ID), Expires: i.Until}, now)
}

// RevokeGuest ends the session of one guest: its cookie, and what hangs on
// owner, the name that the guest's TURN handles are made of.
func (s *Sessions) RevokeGuest(ctx context.Context, session Session, owner string, now time.Time) error {
	return errors.Join(s.Revoke(ctx, session, now),
		s.revoked.add(ctx, revokedUser+userTag(s.revoked.secret, owner), now, session.Expires.Sub(now)))
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }
