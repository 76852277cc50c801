package app

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"callbox/static"
)

// maxBody bounds a request body, in bytes: the longest is a form with a password of 1 KiB.
const maxBody = 32 << 10

// apiError is a refusal as programs read it.
type apiError struct {
	Status     int           `json:"-"`
	RetryAfter time.Duration `json:"-"` // above zero: a header of that many seconds
	Title      string        `json:"-"` // of the page, instead of the status in words
	Code       string        `json:"code"`
	Message    string        `json:"message"`
}

func (e *apiError) Error() string { return e.Message }

// Refusals that several routes give.
func errUnauthorized() *apiError {
	return &apiError{Status: http.StatusUnauthorized, Code: "unauthorized", Message: "log in, or give a room token as Authorization: Bearer"}
}

func errToken() *apiError {
	return &apiError{Status: http.StatusUnauthorized, Code: "bad-token", Message: "the token is not valid or has expired"}
}

func errThrottled(wait time.Duration) *apiError {
	return &apiError{Status: http.StatusTooManyRequests, RetryAfter: wait, Code: "too-many-attempts", Message: "too many failed attempts; try again in " + retrySeconds(wait) + " s"}
}

func errInternal() *apiError {
	return &apiError{Status: http.StatusInternalServerError, Code: "internal", Message: "something went wrong; the server's log says what"}
}

// writeJSON answers with a value as JSON.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the answer cannot be written"}}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone is nobody's fault
}

// writeError answers with {"error":{"code","message"}}.
func writeError(w http.ResponseWriter, e *apiError) {
	h := w.Header()
	if e.RetryAfter > 0 {
		h.Set("Retry-After", retrySeconds(e.RetryAfter))
	}
	if e.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="callbox"`)
	}
	writeJSON(w, e.Status, struct {
		Error *apiError `json:"error"`
	}{e})
}

// retrySeconds rounds up: a client that comes back then is not too early.
func retrySeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// refuse answers a person with a page and a program with JSON.
func refuse(w http.ResponseWriter, r *http.Request, log *slog.Logger, e *apiError) {
	if strings.HasPrefix(r.URL.Path, "/api/") || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		writeError(w, e)
		return
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", retrySeconds(e.RetryAfter))
	}
	title := e.Title
	if title == "" {
		title = http.StatusText(e.Status)
	}
	page(w, e.Status, log, func(w io.Writer) error {
		return static.Error(w, static.ErrorPage{Status: e.Status, Title: title, Text: capital(e.Message)})
	})
}

// page answers with a page that write renders.
func page(w http.ResponseWriter, status int, log *slog.Logger, write func(io.Writer) error) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", static.ContentSecurityPolicy)
	w.WriteHeader(status)
	if err := write(w); err != nil {
		log.Debug("page not written", logError, err)
	}
}
