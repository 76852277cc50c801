package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// readJSON decodes a body of one JSON object into the struct that into points to. Members are named exactly as in its json
// tags, and no others are taken. Texts must be there; a number or a switch that is missing has its zero value.
func readJSON(r *http.Request, into any) *apiError {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &apiError{Status: http.StatusUnsupportedMediaType, Code: "bad-type", Message: "send Content-Type: application/json"}
	}
	const code = "bad-json"
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return badBody(err, code)
	}
	if err := decodeObject(body, reflect.ValueOf(into).Elem()); err != nil {
		return &apiError{Status: http.StatusBadRequest, Code: code, Message: err.Error()}
	}
	return nil
}

// decodeObject fills a struct from a JSON object. Its error is written for whoever wrote the object: it names members, and
// no type of this program.
func decodeObject(body []byte, into reflect.Value) error {
	names := members(into.Type())
	wanted := "a JSON object with " + strings.Join(names, ", ")
	if len(bytes.TrimSpace(body)) == 0 {
		return errors.New("the body is empty; send " + wanted)
	}
	var object map[string]json.RawMessage
	err := json.Unmarshal(body, &object)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("the body is not valid JSON from byte %d on; send %s", syntax.Offset, wanted)
	case err != nil || object == nil: // another value, or null
		return errors.New("the body must be " + wanted)
	}
	var faults []string
	for i, name := range names {
		text, given := object[name]
		delete(object, name)
		field := into.Field(i)
		if !given && field.Kind() != reflect.String {
			continue
		}
		if !given {
			faults = append(faults, name+" is missing")
		} else if string(text) == "null" || json.Unmarshal(text, field.Addr().Interface()) != nil {
			faults = append(faults, name+" must be "+kindName(field.Kind()))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		faults = append(faults, fmt.Sprintf("%.40q is not a member", name))
	}
	if len(faults) > 0 {
		return errors.New(strings.Join(faults, "; ") + "; send " + wanted)
	}
	return nil
}

// members are the JSON names of a struct's fields.
func members(t reflect.Type) []string {
	out := make([]string, t.NumField())
	for i := range out {
		out[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return out
}

// kindName is what a writer of JSON calls a kind of value.
func kindName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	}
	return "a whole number"
}

// badBody tells a body that is too long or does not come from one that cannot be read.
func badBody(err error, code string) *apiError {
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return &apiError{Status: http.StatusRequestEntityTooLarge, Code: "too-long", Message: "the body is longer than " + strconv.FormatInt(long.Limit, 10) + " bytes"}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &apiError{Status: http.StatusRequestTimeout, Code: "too-slow", Message: "the body did not come in time"}
	}
	return &apiError{Status: http.StatusBadRequest, Code: code, Message: "the body cannot be read: " + err.Error()}
}
