package client

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
)

var (
	// ErrClosed: Close was called, or the server has ended the session on this client's wish.
	ErrClosed = errors.New("callbox client: closed")
	// ErrUnauthorized: no valid cookie or token, or the login has expired or was revoked. Log in again, or give a fresh token.
	ErrUnauthorized = errors.New("callbox client: not authorized")
	// ErrRefused: the server will not have this client, for its origin or because it speaks no callbox.v1.
	ErrRefused = errors.New("callbox client: refused")
	// ErrReplaced: the session goes on in another connection.
	ErrReplaced = errors.New("callbox client: the session was resumed elsewhere")
	// ErrFaulty: the server ended the session because of faults in what this client had sent.
	ErrFaulty = errors.New("callbox client: too many faults")
	// ErrSessionLost: the session has ended before the answer came; the request may or may not have been handled.
	ErrSessionLost = errors.New("callbox client: the session was lost")
	// ErrTooLarge: a message is larger than the server takes.
	ErrTooLarge = errors.New("callbox client: message too large")
	// ErrData: what was to be sent is not JSON.
	ErrData = errors.New("callbox client: not JSON")
	// ErrServer: what the server says is not callbox.v1. The client tries again.
	ErrServer = errors.New("callbox client: the server breaks the protocol")
	// ErrUnavailable: the server takes no connection at the moment. Once a session stands the client tries again by itself.
	ErrUnavailable = errors.New("callbox client: server unavailable")
)

// Error is the server's answer to a request that it did not carry out.
type Error struct {
	Code    string // one of the codes below, or another one of docs/protocol.md
	Message string // English, for people
	Field   string // the field at fault, if one is
}

// Codes that a program may want to tell apart.
const (
	CodeNotAllowed   = "not-allowed"
	CodeRoomFull     = "room-full"
	CodeTooManyRooms = "too-many-rooms"
	CodeNotInRoom    = "not-in-room"
	CodeUnavailable  = "unavailable"
	CodeNoSuchCall   = "no-such-call"
	CodeTooManyCalls = "too-many-calls"
	CodeRateLimited  = "rate-limited"
	CodeBusy         = "busy"
)

func (e *Error) Error() string {
	if e.Field != "" {
		return fmt.Sprintf("callbox: %s (%s): %s", e.Code, e.Field, e.Message)
	}
	return "callbox: " + e.Code + ": " + e.Message
}

// hasCode says whether err is the server's answer with one of the codes.
func hasCode(err error, codes ...string) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, code := range codes {
		if e.Code == code {
			return true
		}
	}
	return false
}

// Close codes (docs/protocol.md).
const (
	closeFaulty    websocket.StatusCode = 4000
	closeAuth      websocket.StatusCode = 4001
	closeReplaced  websocket.StatusCode = 4002
	closeSlow      websocket.StatusCode = 4003
	closeOverload  websocket.StatusCode = 4004
	closeGoingAway websocket.StatusCode = 4005
)

// verdict on the end of a connection: an error that is final, or nil to come back.
func (c *Client) final(err error) error {
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure:
		return ErrClosed
	case closeFaulty:
		return fmt.Errorf("%w: %w", ErrFaulty, err)
	case closeAuth:
		if c.o.TokenSource != nil { // a fresh one may do
			return nil
		}
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	case closeReplaced:
		return ErrReplaced
	}
	if errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrRefused) {
		return err
	}
	return nil
}

// handshakeError says what an HTTP answer in place of the upgrade means.
func handshakeError(resp *http.Response, err error) error {
	if resp == nil {
		return fmt.Errorf("callbox client: %w", err)
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", ErrUnauthorized, resp.Status)
	case http.StatusForbidden, http.StatusBadRequest, http.StatusUpgradeRequired, http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrRefused, resp.Status)
	case http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %s", ErrUnavailable, resp.Status)
	}
	return fmt.Errorf("callbox client: %s: %w", resp.Status, err)
}
