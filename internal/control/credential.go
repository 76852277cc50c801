package control

import (
	"errors"
	"fmt"
	"time"

	"callbox/auth"
)

// ErrCredential says that a credential was asked for that cannot be made.
var ErrCredential = errors.New("TURN credential")

// maxCredentialUser bounds the name in a request, in bytes.
const maxCredentialUser = 128

// CredentialRequest asks for a TURN credential.
type CredentialRequest struct {
	User       string `json:"user"`
	TTLSeconds int64  `json:"ttlSeconds"` // 0: the setting turn-ttl
}

// Credential answers PathCredential.
type Credential struct {
	Username  string    `json:"username"`
	Password  string    `json:"password"`
	Realm     string    `json:"realm"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Check refuses what no credential can be made for, with ErrCredential, in the words of the command.
func (r CredentialRequest) Check() error {
	if r.TTLSeconds < 0 || r.TTLSeconds > int64(auth.MaxHandleLife/time.Second) {
		return fmt.Errorf("%w: --ttl must be from 1s to %v", ErrCredential, auth.MaxHandleLife)
	}
	if r.User == "" || len(r.User) > maxCredentialUser {
		return fmt.Errorf("%w: --user must have 1 to %d bytes", ErrCredential, maxCredentialUser)
	}
	return nil
}

// Make makes the credential: the same by a running server and without one.
func (r CredentialRequest) Make(turn auth.TURN, master []byte, standard time.Duration, now time.Time) (Credential, error) {
	if err := r.Check(); err != nil {
		return Credential{}, err
	}
	ttl := time.Duration(r.TTLSeconds) * time.Second
	if ttl == 0 {
		ttl = standard
	}
	username, password, expires := turn.Credential(auth.Handle(master, r.User, auth.NewSessionID(now)), ttl, now)
	return Credential{Username: username, Password: password, Realm: turn.Realm, ExpiresAt: expires.UTC()}, nil
}
