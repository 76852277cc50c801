package app

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"callbox/auth"
	"callbox/internal/control"
)

// listenControl opens the control socket. One that a dead server left is removed: the lock on the data directory says that
// no live server owns it.
func listenControl(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket (a shorter --data helps where the path is over 100 bytes): %w", err)
	}
	// Until this line the directory's mode keeps others out.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket %s: %w", filepath.Base(path), err)
	}
	return l, nil
}

// controlServer answers the callbox command. Whoever can open the socket may do everything.
func (a *App) controlServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle(control.PathUserAdd, methods{"POST": a.controlUserAdd})
	mux.Handle(control.PathUserList, methods{"GET": a.controlUserList})
	mux.Handle(control.PathUserPasswd, methods{"POST": a.controlUserPasswd})
	mux.Handle(control.PathUserRemove, methods{"POST": a.controlUserRemove})
	mux.Handle(control.PathKeyAdd, methods{"POST": a.controlKeyAdd})
	mux.Handle(control.PathKeyList, methods{"GET": a.controlKeyList})
	mux.Handle(control.PathKeyRemove, methods{"POST": a.controlKeyRemove})
	mux.Handle(control.PathInviteAdd, methods{"POST": a.controlInviteAdd})
	mux.Handle(control.PathInviteList, methods{"GET": a.controlInviteList})
	mux.Handle(control.PathInviteRemove, methods{"POST": a.controlInviteRemove})
	mux.Handle(control.PathCredential, methods{"POST": a.controlCredential})
	mux.Handle(control.PathReload, methods{"POST": a.controlReload})
	mux.Handle(control.PathDoctor, methods{"POST": a.controlDoctor})
	mux.Handle(control.PathPhone, methods{"POST": a.controlPhone})
	mux.Handle(control.PathHealth, methods{"GET": a.controlHealth})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, &apiError{Status: http.StatusNotFound, Code: control.CodeNotFound, Message: "this server does not know that command"})
	})
	return a.web.server(http.MaxBytesHandler(mux, maxBody))
}

// controlled reads a request, does something and answers.
func controlled[T any](a *App, w http.ResponseWriter, r *http.Request, do func(T) (any, error)) {
	var in T
	if err := readJSON(r, &in); err != nil {
		err.Code = control.CodeBadRequest
		writeError(w, err)
		return
	}
	out, err := do(in)
	a.controlAnswer(w, out, err)
}

func (a *App) controlAnswer(w http.ResponseWriter, out any, err error) {
	switch {
	case err == nil && out == nil:
		w.WriteHeader(http.StatusNoContent)
	case err == nil:
		writeJSON(w, http.StatusOK, out)
	case errors.Is(err, auth.ErrExists):
		writeError(w, &apiError{Status: http.StatusConflict, Code: control.CodeExists, Message: err.Error()})
	case errors.Is(err, auth.ErrNotFound):
		writeError(w, &apiError{Status: http.StatusNotFound, Code: control.CodeNotFound, Message: err.Error()})
	case errors.Is(err, auth.ErrName), errors.Is(err, auth.ErrKeyName):
		writeError(w, &apiError{Status: http.StatusBadRequest, Code: control.CodeBadName, Message: err.Error()})
	case errors.Is(err, auth.ErrPassword):
		writeError(w, &apiError{Status: http.StatusBadRequest, Code: control.CodeBadPassword, Message: err.Error()})
	case errors.Is(err, errReload):
		writeError(w, &apiError{Status: http.StatusConflict, Code: control.CodeBadConfig, Message: err.Error()})
	case errors.Is(err, control.ErrCredential), errors.Is(err, auth.ErrInviteTerms):
		writeError(w, &apiError{Status: http.StatusBadRequest, Code: control.CodeBadRequest, Message: err.Error()})
	case errors.Is(err, auth.ErrBusy), errors.Is(err, auth.ErrTooManyKeys), errors.Is(err, auth.ErrTooManyInvites):
		writeError(w, &apiError{Status: http.StatusServiceUnavailable, Code: control.CodeBusy, Message: err.Error()})
	default:
		a.log.Error("command failed", logError, err)
		writeError(w, &apiError{Status: http.StatusInternalServerError, Code: control.CodeInternal, Message: err.Error()})
	}
}

// accounts are those of this server.
func (a *App) accounts() control.Accounts {
	return control.NewAccounts(control.Parts{
		Users: a.web.users, Externals: a.web.externals, Keys: a.web.keys, Invites: a.web.invites, Sessions: a.web.sessions,
		CredentialTTL: func() time.Duration { return a.live.Load().cfg.TURNTTL }, Bases: a.linkBases,
	})
}

func (a *App) controlUserAdd(w http.ResponseWriter, r *http.Request) {
	controlled(a, w, r, func(in control.UserAdd) (any, error) { return nil, a.accounts().AddUser(r.Context(), in) })
}

func (a *App) controlUserList(w http.ResponseWriter, r *http.Request) {
	users, err := a.accounts().Users(r.Context())
	a.controlAnswer(w, control.UserList{Users: users}, err)
}

func (a *App) controlUserPasswd(w http.ResponseWriter, r *http.Request) {
	controlled(a, w, r, func(in control.UserPasswd) (any, error) {
		defer a.reap()
		return nil, a.accounts().SetPassword(r.Context(), in)
	})
}

func (a *App) controlUserRemove(w http.ResponseWriter, r *http.Request) {
	controlled(a, w, r, func(in control.UserRemove) (any, error) {
		defer a.reap()
		return nil, a.accounts().RemoveUser(r.Context(), in.Name)
	})
}

func (a *App) controlKeyAdd(w http.ResponseWriter, r *http.Request) {
	controlled(a, w, r, func(in control.KeyAdd) (any, error) { return a.accounts().AddKey(r.Context(), in.Name) })
}

func (a *App) controlKeyList(w http.ResponseWriter, r *http.Request) {
	keys, err := a.accounts().Keys(r.Context())
	a.controlAnswer(w, control.KeyList{Keys: keys}, err)
}

func (a *App) controlKeyRemove(w http.ResponseWriter, r *http.Request) {
	controlled(a, w, r, func(in control.KeyRemove) (any, error) {
		defer a.reap()
		return nil, a.accounts().RemoveKey(r.Context(), in.ID)
	})
}

func (a *App) controlInviteAdd(w http.ResponseWriter, r *http.Request) {
	controlled(a, w, r, func(in control.InviteAdd) (any, error) { return a.accounts().AddInvite(r.Context(), in) })
}

func (a *App) controlInviteList(w http.ResponseWriter, r *http.Request) {
	invites, err := a.accounts().Invites(r.Context())
	a.controlAnswer(w, control.InviteList{Invites: invites}, err)
}

func (a *App) controlInviteRemove(w http.ResponseWriter, r *http.Request) {
	controlled(a, w, r, func(in control.InviteRemove) (any, error) {
		defer a.reap()
		return nil, a.accounts().RemoveInvite(r.Context(), in.ID)
	})
}

// controlCredential makes a credential that this server's relay takes, whatever its secrets and realm came from.
func (a *App) controlCredential(w http.ResponseWriter, r *http.Request) {
	controlled(a, w, r, func(in control.CredentialRequest) (any, error) {
		l := a.live.Load()
		return in.Make(l.turn, a.secrets.Master, l.cfg.TURNTTL, time.Now())
	})
}

func (a *App) controlReload(w http.ResponseWriter, _ *http.Request) {
	out, err := a.reload()
	a.controlAnswer(w, out, err)
}

func (a *App) controlHealth(w http.ResponseWriter, _ *http.Request) {
	status := "ok"
	if a.draining.Load() {
		status = "draining"
	}
	out := control.Health{Status: status, Version: a.opts.Version, Node: string(a.bus.Self()), Addr: a.addr.String()}
	if a.metrics != nil {
		out.Metrics = a.metrics.Addr().String()
	}
	a.controlAnswer(w, out, nil)
}
