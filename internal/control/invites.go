package control

import (
	"context"
	"errors"
	"strings"
	"time"

	"callbox/auth"
)

// InvitePath is the path of an invite's page on the server, without the token at its end.
const InvitePath = "/invite/"

// TTL is TTLSeconds, cut to just beyond the bound rather than overflowing.
func (r InviteAdd) TTL() time.Duration {
	limit := int64(auth.MaxInviteTTL/time.Second) + 1
	return time.Duration(max(0, min(r.TTLSeconds, limit))) * time.Second
}

// AddInvite makes an invite and its links.
func (a Accounts) AddInvite(ctx context.Context, r InviteAdd) (NewInvite, error) {
	invite, token, err := a.p.Invites.Add(ctx, auth.InviteTerms{Room: r.Room, TTL: r.TTL(), Uses: r.Uses}, time.Now())
	if err != nil {
		return NewInvite{}, err
	}
	return MakeNewInvite(invite, token, a.p.Bases()), nil
}

// MakeNewInvite writes the links of an invite.
func MakeNewInvite(invite auth.Invite, token string, bases []string) NewInvite {
	out := NewInvite{ID: invite.ID, Room: invite.Room, URLs: []string{}, ExpiresAt: invite.Until, Uses: invite.Uses}
	for _, base := range bases {
		out.URLs = append(out.URLs, base+InvitePath+token)
	}
	if len(out.URLs) > 0 {
		out.URL = out.URLs[0]
	}
	return out
}

// Invites lists the invites that have not ended.
func (a Accounts) Invites(context.Context) ([]Invite, error) {
	out := []Invite{}
	for _, i := range a.p.Invites.List(time.Now()) {
		out = append(out, Invite{ID: i.ID, Room: i.Room, By: i.By, Created: i.Created, ExpiresAt: i.Until, Uses: i.Uses, Used: i.Used})
	}
	return out, nil
}

// RemoveInvite removes an invite and ends the sessions of its guests.
func (a Accounts) RemoveInvite(ctx context.Context, id string) error {
	invite, err := a.p.Invites.Remove(ctx, id)
	if err != nil {
		return err
	}
	return a.p.Sessions.RevokeInvite(context.WithoutCancel(ctx), invite, time.Now())
}

// removeInvitesBy removes what a user made who is removed.
func (a Accounts) removeInvitesBy(ctx context.Context, user string) error {
	var errs []error
	for _, i := range a.p.Invites.List(time.Now()) {
		if strings.EqualFold(i.By, user) {
			errs = append(errs, a.RemoveInvite(ctx, i.ID))
		}
	}
	return errors.Join(errs...)
}
