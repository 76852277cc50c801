// Package control is the talk between a running server and the callbox
// command: HTTP with JSON bodies over a Unix socket in the data directory. It
// holds the types of both sides and the client; the routes are the server's.
//
// Who may open the socket may do everything: its mode (0600, in a directory of
// 0700) is the whole access control.
package control

import (
	"fmt"
	"net/http"
	"time"
)

// The routes. All but those named with GET take POST.
const (
	PathUserAdd      = "/user/add"
	PathUserList     = "/user/list" // GET
	PathUserPasswd   = "/user/passwd"
	PathUserRemove   = "/user/remove"
	PathKeyAdd       = "/key/add"
	PathKeyList      = "/key/list" // GET
	PathKeyRemove    = "/key/remove"
	PathInviteAdd    = "/invite/add"
	PathInviteList   = "/invite/list" // GET
	PathInviteRemove = "/invite/remove"
	PathCredential   = "/credential"
	PathReload       = "/reload"
	PathHealth       = "/health" // GET
	PathDoctor       = "/doctor"
	PathPhone        = "/doctor/phone"
)

// SocketName is the name of the socket in the data directory.
const SocketName = "control.sock"

// MaxBody bounds every request and response body, in bytes.
const MaxBody = 4 << 20

// User is one user as listed; it says nothing of the password.
type User struct {
	Name            string    `json:"name"`
	Admin           bool      `json:"admin"`
	Created         time.Time `json:"created"`
	PasswordChanged time.Time `json:"passwordChanged"` // zero: a user of the OpenID provider
}

// Key is one API key as listed, without its secret.
type Key struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// UserAdd asks for a new user.
type UserAdd struct {
	Name     string `json:"name"`
	Password string `json:"password"`
	Admin    bool   `json:"admin"`
}

// UserList answers PathUserList, sorted by name; users of the OpenID provider come last.
type UserList struct {
	Users []User `json:"users"`
}

// UserPasswd asks for another password; the user's sessions end.
type UserPasswd struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// UserRemove asks to remove a user; the user's sessions end.
type UserRemove struct {
	Name string `json:"name"`
}

// KeyAdd asks for a new API key.
type KeyAdd struct {
	Name string `json:"name"`
}

// NewKey answers PathKeyAdd. It is the only time the secret is shown.
type NewKey struct {
	ID     string `json:"id"`
	Secret string `json:"secret"` // base64url, what tokens are signed with as it stands
	Key    string `json:"key"`    // ID "." Secret, the form that commands and HTTP take
}

// KeyList answers PathKeyList, sorted by creation.
type KeyList struct {
	Keys []Key `json:"keys"`
}

// KeyRemove asks to remove an API key; tokens signed with it stop working.
type KeyRemove struct {
	ID string `json:"id"`
}

// InviteAdd asks for a new invite.
type InviteAdd struct {
	Room       string `json:"room"`
	TTLSeconds int64  `json:"ttlSeconds"`
	Uses       int    `json:"uses"`
}

// NewInvite answers PathInviteAdd. It is the only time the link is shown.
type NewInvite struct {
	ID        string    `json:"id"`
	Room      string    `json:"room"`
	URL       string    `json:"url"`  // the link by which most others reach the server
	URLs      []string  `json:"urls"` // the same by each address of the server, that one first
	ExpiresAt time.Time `json:"expiresAt"`
	Uses      int       `json:"uses"`
}

// Invite is one invite as listed; it says nothing of the link.
type Invite struct {
	ID        string    `json:"id"`
	Room      string    `json:"room"`
	By        string    `json:"by"` // the user who made it; "" for the command line
	Created   time.Time `json:"created"`
	ExpiresAt time.Time `json:"expiresAt"`
	Uses      int       `json:"uses"` // how many guests it lets in
	Used      int       `json:"used"` // how many it has let in
}

// InviteList answers PathInviteList, sorted by creation.
type InviteList struct {
	Invites []Invite `json:"invites"`
}

// InviteRemove asks to remove an invite; the sessions of its guests end.
type InviteRemove struct {
	ID string `json:"id"`
}

// Reloaded answers PathReload, with the names of settings. A configuration with faults is CodeBadConfig, and changes nothing.
type Reloaded struct {
	Changed []string `json:"changed"` // in force from now on
	Restart []string `json:"restart"` // differ from those in force, and need a restart
}

// Health answers PathHealth.
type Health struct {
	Status  string `json:"status"` // "ok" or "draining"
	Version string `json:"version"`
	Node    string `json:"node"`
	Addr    string `json:"addr"`    // the address listened on
	Metrics string `json:"metrics"` // the address of --metrics-listen; "": none
}

// Codes of errors, for programs; the message is for people.
const (
	CodeExists      = "exists"       // 409
	CodeNotFound    = "not-found"    // 404
	CodeBadName     = "bad-name"     // 400
	CodeBadPassword = "bad-password" // 400
	CodeBadRequest  = "bad-request"  // 400
	CodeBadConfig   = "bad-config"   // 409
	CodeBusy        = "busy"         // 503
	CodeInternal    = "internal"     // 500
)

// Error is a refusal by the server.
type Error struct {
	Status  int    `json:"-"` // HTTP status
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error is the message, which is written for people.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
	}
	return e.Message
}

// ErrorBody is the JSON body of every answer that is not a success.
type ErrorBody struct {
	Error Error `json:"error"`
}
