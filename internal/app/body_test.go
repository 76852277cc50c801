package app

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"callbox/internal/control"
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
