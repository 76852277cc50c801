package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of invites. Their number is bounded because any user may make some.
const (
	MinInviteTTL  = time.Minute
	MaxInviteTTL  = 90 * 24 * time.Hour
	MaxInviteUses = 1000

	maxInvites   = 2000 // that have not ended
	maxInvitesBy = 100  // of them by one user
	inviteToken  = 16   // bytes: 128 bits
	maxInvite    = 64   // bytes of a token's text that are looked at
)

// Errors of Invites.
var (
	ErrInvite         = errors.New("the invitation is not valid: it has ended, was withdrawn, or its link is not whole")
	ErrInviteUsed     = errors.New("the invitation has been used as often as it may be")
	ErrInviteTerms    = errors.New("an invite cannot be made so")
	ErrTooManyInvites = fmt.Errorf("there are %d invites already, or %d by this user; remove some or let them end", maxInvites, maxInvitesBy)
)

// Invite is a link by which people without an account join one room as guests.
type Invite struct {
	ID      string // 16 hexadecimal digits, of the hash of its token
	Room    string
	By      string // the user who made it; "" for the command line
	Created time.Time
	Until   time.Time // when it ends, and with it the sessions of its guests
	Uses    int       // how many guests it lets in
	Used    int       // how many it has let in
}

// UsedUp says that it lets nobody else in.
func (i Invite) UsedUp() bool { return i.Used >= i.Uses }

// InviteTerms are what an invite is made of.
type InviteTerms struct {
	Room string
	By   string // "" for the command line
	TTL  time.Duration
	Uses int
}

// check says what is wrong in the words of who asks: ErrInviteTerms.
func (t InviteTerms) check() error {
	switch {
	case t.Room == "" || len(t.Room) > maxRoom || strings.HasPrefix(t.Room, "@") || !utf8.ValidString(t.Room) || hasControl(t.Room):
		return fmt.Errorf("%w: a room has 1 to %d bytes of text without control characters, and does not begin with @", ErrInviteTerms, maxRoom)
	case t.TTL < MinInviteTTL || t.TTL > MaxInviteTTL:
		return fmt.Errorf("%w: it lasts from %v to %v", ErrInviteTerms, MinInviteTTL, MaxInviteTTL)
	case t.Uses < 1 || t.Uses > MaxInviteUses:
		return fmt.Errorf("%w: it has 1 to %d uses", ErrInviteTerms, MaxInviteUses)
	}
	return nil
}

// Invites are all invites, read from the store and held in memory. Of a token
// only the hash is kept.
type Invites struct {
	store Store
	cache *cache[inviteRecord]
}

// inviteRecord is an invite as stored, by its id.
type inviteRecord struct {
	Hash    string    `json:"hash"` // base64url of the token's SHA-256
	Room    string    `json:"room"`
	By      string    `json:"by,omitempty"`
	Created time.Time `json:"created"`
	Until   time.Time `json:"until"`
	Uses    int       `json:"uses"`
	Used    int       `json:"used"`
}

func (r inviteRecord) invite(id string) Invite {
	return Invite{ID: id, Room: r.Room, By: r.By, Created: r.Created, Until: r.Until, Uses: r.Uses, Used: r.Used}
}

// opens says whether it is the invite of a token, and has not ended.
func (r inviteRecord) opens(token string, now time.Time) bool {
	_, hash := inviteKey(token)
	return subtle.ConstantTimeCompare([]byte(r.Hash), []byte(hash)) == 1 && now.Before(r.Until)
}

func decodeInvite(key string, text []byte) (inviteRecord, error) {
	var r inviteRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return inviteRecord{}, err
	}
	if hash, err := decode(r.Hash); err != nil || len(hash) != sha256.Size || hex.EncodeToString(hash[:8]) != key {
		return inviteRecord{}, fmt.Errorf("its hash is %q", r.Hash)
	}
	return r, nil
}

// inviteKey is the id that belongs to a token, and the hash that is stored.
func inviteKey(token string) (id, hash string) {
	sum := sha256.Sum256([]byte("callbox invite " + token))
	return hex.EncodeToString(sum[:8]), encode(sum[:])
}

// OpenInvites reads the invites from the store.
func OpenInvites(ctx context.Context, store Store) (*Invites, error) {
	i := &Invites{store: store, cache: newCache(store, BucketInvites, decodeInvite)}
	if err := i.Reload(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

// Reload reads all invites anew, for when news of changes may have been missed.
func (i *Invites) Reload(ctx context.Context) error { return i.cache.reloadAll(ctx) }

// Changed reads one invite anew, after news of a change of its record.
func (i *Invites) Changed(ctx context.Context, key string) error { return i.cache.reload(ctx, key) }

// Add makes an invite and returns the token of its link, which is not kept:
// ErrInviteTerms, ErrTooManyInvites.
func (i *Invites) Add(ctx context.Context, t InviteTerms, now time.Time) (Invite, string, error) {
	if err := t.check(); err != nil {
		return Invite{}, "", err
	}
	all, by := i.List(now), 0
	for _, other := range all {
		if other.By == t.By && t.By != "" {
			by++
		}
	}
	if len(all) >= maxInvites || by >= maxInvitesBy {
		return Invite{}, "", ErrTooManyInvites
	}
	token := encode(random(inviteToken))
	id, hash := inviteKey(token)
	r := inviteRecord{
		Hash: hash, Room: t.Room, By: t.By, Uses: t.Uses,
		Created: now.UTC().Truncate(time.Millisecond), Until: now.UTC().Add(t.TTL).Truncate(time.Millisecond),
	}
	err := i.store.Update(ctx, BucketInvites, id, func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			return nil, 0, fmt.Errorf("invite %s: exists", id)
		}
		text, err := json.Marshal(r)
		return text, t.TTL, err
	})
	if err != nil {
		return Invite{}, "", err
	}
	return r.invite(id), token, i.cache.reload(ctx, id)
}

// Known finds the invite of a token among those in memory, used up or not.
func (i *Invites) Known(token string, now time.Time) (Invite, bool) {
	if token == "" || len(token) > maxInvite {
		return Invite{}, false
	}
	id, _ := inviteKey(token)
	r, ok := i.cache.get(id)
	if !ok || !r.opens(token, now) {
		return Invite{}, false
	}
	return r.invite(id), true
}

// Find is Known that asks the store as well, where another node may have made
// the invite a moment ago: ErrInvite.
func (i *Invites) Find(ctx context.Context, token string, now time.Time) (Invite, error) {
	if found, ok := i.Known(token, now); ok {
		return found, nil
	}
	if token == "" || len(token) > maxInvite {
		return Invite{}, ErrInvite
	}
	id, _ := inviteKey(token)
	if err := i.cache.reload(ctx, id); err != nil {
		return Invite{}, err
	}
	if found, ok := i.Known(token, now); ok {
		return found, nil
	}
	return Invite{}, ErrInvite
}

// Use counts one guest, on whichever node: ErrInvite, ErrInviteUsed. Of guests
// who come at the same time no more are let in than the invite has uses.
func (i *Invites) Use(ctx context.Context, token string, now time.Time) (Invite, error) {
	if token == "" || len(token) > maxInvite {
		return Invite{}, ErrInvite
	}
	id, _ := inviteKey(token)
	var used inviteRecord
	err := i.store.Update(ctx, BucketInvites, id, func(old []byte) ([]byte, time.Duration, error) {
		if old == nil {
			return nil, 0, ErrInvite
		}
		r, err := decodeInvite(id, old)
		switch {
		case err != nil:
			return nil, 0, err
		case !r.opens(token, now):
			return nil, 0, ErrInvite
		case r.Used >= r.Uses:
			return nil, 0, ErrInviteUsed
		}
		r.Used++
		used = r
		text, err := json.Marshal(r)
		return text, r.Until.Sub(now), err
	})
	if err != nil {
		return Invite{}, err
	}
	return used.invite(id), i.cache.reload(ctx, id)
}

// Lookup finds an invite that has not ended, by its id.
func (i *Invites) Lookup(id string, now time.Time) (Invite, bool) {
	r, ok := i.cache.get(id)
	return r.invite(id), ok && now.Before(r.Until)
}

// List returns the invites that have not ended, the oldest first, and forgets the others.
func (i *Invites) List(now time.Time) []Invite {
	var out []Invite
	for id, r := range i.cache.all() {
		if now.Before(r.Until) {
			out = append(out, r.invite(id))
		} else {
			i.cache.drop(id)
		}
	}
	slices.SortFunc(out, func(a, b Invite) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// Remove removes an invite and returns it: ErrNotFound. Ending the sessions of
// its guests is Sessions.RevokeInvite's part.
func (i *Invites) Remove(ctx context.Context, id string) (Invite, error) {
	r, ok := i.cache.get(id)
	if !ok {
		return Invite{}, fmt.Errorf("invite %s: %w", shown(id), ErrNotFound)
	}
	err := i.store.Update(ctx, BucketInvites, id, func(old []byte) ([]byte, time.Duration, error) {
		if old == nil {
			return nil, 0, fmt.Errorf("invite %s: %w", shown(id), ErrNotFound)
		}
		return nil, 0, nil
	})
	if err != nil {
		return Invite{}, err
	}
	return r.invite(id), i.cache.reload(ctx, id)
}
