package signal

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Identity is who a connection belongs to, as the caller of Serve has verified it.
type Identity struct {
	User    string    // authenticated user, or the subject of a room token; 1 to 128 bytes
	Name    string    // what others see unless the client names itself; empty: User
	Session string    // login session or token id, for Revoke; opaque
	Room    string    // the only room this identity may use; empty: any
	Login   bool      // a logged-in user, who can be called by name
	Expires time.Time // when the connection must end; zero: never
	Open    bool      // admitted without any proof: there is nothing to revoke, and no ICE

	// Still says whether all of the above is still so. It is asked once, when Revoke can see the connection: a revocation
	// before that, but after the caller of Serve looked, is not missed. Nil: it is. It must not block.
	Still func() bool

	// ICE computes the ICE servers for this identity, the node that serves
	// room first if room is not empty. Nil: none are offered. It must not block.
	ICE func(room string) (ICE, error)
}

// ICE is a list of ICE servers with credentials that hold until ExpiresAt.
type ICE struct {
	Servers    []ICEServer `json:"iceServers"`
	TTLSeconds int         `json:"ttlSeconds"`
	ExpiresAt  time.Time   `json:"expiresAt"`
}

// ICEServer is one entry as RTCPeerConnection takes it.
type ICEServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// displayName is what others see of a client that gave itself no name.
func (id *Identity) displayName() string {
	if checkText(id.Name, maxName) == textOK {
		return id.Name
	}
	return id.User
}

const (
	maxRoomName = 64
	maxName     = 128 // also of users
	maxID       = 64
	maxPeerID   = 64
)

type textFault int

const (
	textOK textFault = iota
	textEmpty
	textLong
	textBad // control characters or not UTF-8
)

// checkText is the rule for everything that clients name.
func checkText(s string, limit int) textFault {
	switch {
	case s == "":
		return textEmpty
	case len(s) > limit:
		return textLong
	case !utf8.ValidString(s) || strings.ContainsFunc(s, control):
		return textBad
	}
	return textOK
}

func control(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
