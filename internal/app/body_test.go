package app

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"callbox/internal/control"
	"callbox/signal"
)

func TestFaultyBodiesAreExplainedInTermsOfTheirMembers(t *testing.T) {
	r := serve(t, nil)
	c := r.browser()
	const wanted = "a JSON object with username, password"
	for body, want := range map[string]string{
		"":                                      "the body is empty; send " + wanted,
		" \n":                                   "the body is empty; send " + wanted,
		"null":                                  "the body must be " + wanted,
		"[]":                                    "the body must be " + wanted,
		`"ada"`:                                 "the body must be " + wanted,
		"{}":                                    "username is missing; password is missing; send " + wanted,
		`{"username":"ada"}`:                    "password is missing; send " + wanted,
		`{"username":1,"password":"x"}`:         "username must be a string; send " + wanted,
		`{"username":null,"password":["x"]}`:    "username must be a string; password must be a string; send " + wanted,
		`{"username":"a","password":"x","a":1}`: `"a" is not a member; send ` + wanted,
		`{"Username":"a","password":"x"}`:       `username is missing; "Username" is not a member; send ` + wanted,
		`{"username":"ada"`:                     "the body is not valid JSON from byte 17 on; send " + wanted,
		`{"username":"ada"} {}`:                 "the body is not valid JSON from byte 20 on; send " + wanted,
		"username=ada":                          "the body is not valid JSON from byte 1 on; send " + wanted,
	} {
		a := r.api(c, body)
		var got struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(a.Body), &got); err != nil {
			t.Fatal(err)
		}
		if a.Status != http.StatusBadRequest || got.Error.Code != "bad-json" || got.Error.Message != want {
			t.Errorf("%s: %d %q, want %q", body, a.Status, got.Error.Message, want)
		}
	}
}

func TestBodiesOfCommandsMayLeaveOutNumbersAndSwitches(t *testing.T) {
	var add control.UserAdd
	if err := decodeObject([]byte(`{"name":"ada","password":"x"}`), reflect.ValueOf(&add).Elem()); err != nil || add.Name != "ada" || add.Admin {
		t.Errorf("%+v, %v", add, err)
	}
	var credential control.CredentialRequest
	for body, want := range map[string]string{
		`{"user":"ada"}`:                                   "",
		`{"user":"ada","ttlSeconds":60}`:                   "",
		`{"user":"ada","ttlSeconds":1.5}`:                  "ttlSeconds must be a whole number",
		`{"user":"ada","ttlSeconds":99999999999999999999}`: "ttlSeconds must be a whole number",
		`{"ttlSeconds":60}`:                                "user is missing",
	} {
		err := decodeObject([]byte(body), reflect.ValueOf(&credential).Elem())
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	if err := decodeObject([]byte(`{"name":"a","password":"b","admin":"yes"}`), reflect.ValueOf(&add).Elem()); err == nil || !strings.Contains(err.Error(), "admin must be true or false") {
		t.Errorf("got %v", err)
	}
}

func TestBodyThatDoesNotComeIsARequestTimeout(t *testing.T) {
	r := serve(t, nil)
	server := r.web.server(r.web.handler())
	server.ReadTimeout = 200 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	}()
	for path, kind := range map[string]string{"/api/v1/login": "application/json", "/login": "application/x-www-form-urlencoded"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\nusername", path, l.Addr(), kind); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if err := errors.Join(resp.Body.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestWebSocketWithoutItsSubprotocolIsRefusedAsJSON(t *testing.T) {
	r := serve(t, nil)
	a := r.get(r.browser(), "/ws", "Authorization", "Bearer "+r.mint("tea", "guest", time.Hour), "Sec-WebSocket-Protocol", "chat, callbox.v10")
	if a.Status != http.StatusBadRequest || a.code() != "bad-subprotocol" || !strings.Contains(a.Body, signal.Subprotocol) {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}
