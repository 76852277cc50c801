package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNoServer says that no server listens on the socket.
var ErrNoServer = errors.New("no server is running on this data directory")

// ErrRights says that the socket may not be opened by this user.
var ErrRights = errors.New("the control socket belongs to another user")

// requestTimeout bounds one request, unless its context ends sooner. Hashing a
// password may have to wait for others.
const requestTimeout = 30 * time.Second

// Client talks to the server of one data directory.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client for the server of a data directory. Nothing is opened yet.
func NewClient(dataDir string) *Client {
	socket := filepath.Join(dataDir, SocketName)
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
	return &Client{socket: socket, http: &http.Client{Transport: transport, Timeout: requestTimeout}}
}

// AddUser makes a user.
func (c *Client) AddUser(ctx context.Context, r UserAdd) error {
	return c.do(ctx, http.MethodPost, PathUserAdd, r, nil)
}

// Users lists the users.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	var out UserList
	err := c.do(ctx, http.MethodGet, PathUserList, nil, &out)
	return out.Users, err
}

// SetPassword changes a password and ends the user's sessions.
func (c *Client) SetPassword(ctx context.Context, r UserPasswd) error {
	return c.do(ctx, http.MethodPost, PathUserPasswd, r, nil)
}

// RemoveUser removes a user and ends the user's sessions.
func (c *Client) RemoveUser(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, PathUserRemove, UserRemove{Name: name}, nil)
}

// AddKey makes an API key.
func (c *Client) AddKey(ctx context.Context, name string) (NewKey, error) {
	var out NewKey
	err := c.do(ctx, http.MethodPost, PathKeyAdd, KeyAdd{Name: name}, &out)
	return out, err
}

// Keys lists the API keys.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	var out KeyList
	err := c.do(ctx, http.MethodGet, PathKeyList, nil, &out)
	return out.Keys, err
}

// RemoveKey removes an API key.
func (c *Client) RemoveKey(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, PathKeyRemove, KeyRemove{ID: id}, nil)
}

// AddInvite makes an invite.
func (c *Client) AddInvite(ctx context.Context, r InviteAdd) (NewInvite, error) {
	var out NewInvite
	err := c.do(ctx, http.MethodPost, PathInviteAdd, r, &out)
	return out, err
}

// Invites lists the invites that have not ended.
func (c *Client) Invites(ctx context.Context) ([]Invite, error) {
	var out InviteList
	err := c.do(ctx, http.MethodGet, PathInviteList, nil, &out)
	return out.Invites, err
}

// RemoveInvite removes an invite and ends the sessions of its guests.
func (c *Client) RemoveInvite(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, PathInviteRemove, InviteRemove{ID: id}, nil)
}

// Credential makes a TURN credential.
func (c *Client) Credential(ctx context.Context, r CredentialRequest) (Credential, error) {
	var out Credential
	err := c.do(ctx, http.MethodPost, PathCredential, r, &out)
	return out, err
}

// Reload makes the server read its configuration again.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	var out Reloaded
	err := c.do(ctx, http.MethodPost, PathReload, nil, &out)
	return out, err
}

// Health asks how the server is.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var out Health
	err := c.do(ctx, http.MethodGet, PathHealth, nil, &out)
	return out, err
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("control request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://callbox"+path, body)
	if err != nil {
		return fmt.Errorf("control request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return c.dialError(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
	if err != nil {
		return fmt.Errorf("control answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		refusal := ErrorBody{}
		if err := json.Unmarshal(text, &refusal); err != nil {
			refusal = ErrorBody{}
		}
		refusal.Error.Status = resp.StatusCode
		return &refusal.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("control answer: %w", err)
	}
	return nil
}

// dialError tells a missing server (no socket, or one that a dead server left behind) from other faults.
func (c *Client) dialError(err error) error {
	var op *net.OpError
	switch {
	case !errors.As(err, &op) || op.Op != "dial":
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run this as the user that runs the server (%s)", ErrRights, c.socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return ErrNoServer
	}
	return fmt.Errorf("control socket %s: %w", c.socket, err)
}
