package control

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers on the control socket of a new data directory.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "control") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return NewClient(dir)
}

func TestRequestsHaveTheAgreedShape(t *testing.T) {
	var got []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = append(got, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
		w.WriteHeader(http.StatusOK)
		switch r.URL.Path {
		case PathKeyAdd:
			_, err = io.WriteString(w, `{"id":"i","secret":"s","key":"i.s"}`)
		case PathUserList:
			_, err = io.WriteString(w, `{"users":[{"name":"alice","admin":true}]}`)
		case PathHealth:
			_, err = io.WriteString(w, `{"status":"ok","node":"n"}`)
		default:
			_, err = io.WriteString(w, `{}`)
		}
		if err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	users, err := c.Users(ctx)
	if len(users) != 1 || users[0].Name != "alice" || !users[0].Admin {
		t.Errorf("users %+v", users)
	}
	key, err2 := c.AddKey(ctx, "shop")
	if key != (NewKey{"i", "s", "i.s"}) {
		t.Errorf("key %+v", key)
	}
	health, err3 := c.Health(ctx)
	if health.Status != "ok" || health.Node != "n" {
		t.Errorf("health %+v", health)
	}
	_, err4 := c.Keys(ctx)
	err = errors.Join(err, err2, err3, err4,
		c.AddUser(ctx, UserAdd{"bob", "12345678", true}), c.SetPassword(ctx, UserPasswd{"bob", "87654321"}),
		c.RemoveUser(ctx, "bob"), c.RemoveKey(ctx, "i"))
	if err != nil {
		t.Error(err)
	}
	want := []string{
		"GET /user/list", `POST /key/add {"name":"shop"}`, "GET /health", "GET /key/list",
		`POST /user/add {"name":"bob","password":"12345678","admin":true}`, `POST /user/passwd {"name":"bob","password":"87654321"}`,
		`POST /user/remove {"name":"bob"}`, `POST /key/remove {"id":"i"}`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestRefusalHasCodeAndMessage(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		if err := json.NewEncoder(w).Encode(ErrorBody{Error{Code: CodeExists, Message: "user bob exists"}}); err != nil {
			t.Error(err)
		}
	})
	err := c.AddUser(t.Context(), UserAdd{Name: "bob"})
	var refusal *Error
	if !errors.As(err, &refusal) || *refusal != (Error{409, CodeExists, "user bob exists"}) || err.Error() != "user bob exists" {
		t.Errorf("got %#v", err)
	}
}

func TestStrangeAnswersAreErrors(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{http.StatusBadGateway, "<html>", "the server answered 502 Bad Gateway"},
		{http.StatusOK, "<html>", "control answer"},
		{http.StatusOK, `{"users":[`, "control answer"},
	} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			if _, err := io.WriteString(w, c.body); err != nil {
				t.Error(err)
			}
		})
		if _, err := client.Users(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
	}
}

func TestMissingOrDeadServerIsTold(t *testing.T) {
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if _, err := NewClient(dir).Health(t.Context()); !errors.Is(err, ErrNoServer) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(dir).Health(t.Context()); !errors.Is(err, ErrNoServer) {
		t.Errorf("socket of a dead server: %v", err)
	}
	if _, err := NewClient(filepath.Join(dir, strings.Repeat("x", 200))).Health(t.Context()); err == nil {
		t.Error("a path too long for a socket: no error")
	}
}
