package signal

import (
	"encoding/json"
	"net/http"
)

// refuseUpgrade answers a request that is not upgraded, as the HTTP API refuses: {"error":{"code","message"}}.
func refuseUpgrade(w http.ResponseWriter, status int, code, message string) {
	type fault struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Error fault `json:"error"`
	}{fault{code, message}})
	if err != nil { // texts always can be written
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone is nobody's fault
}
