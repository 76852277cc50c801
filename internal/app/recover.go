package app

import (
	"log/slog"
	"net/http"
	"runtime/debug"
)

// withRecovery lets a fault in one request end that request alone, and not be overlooked: net/http would log it where it
// logs what strangers do.
func withRecovery(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			fault := recover()
			if fault == nil {
				return
			}
			if fault == http.ErrAbortHandler {
				panic(fault) // net/http's own way to cut an answer off
			}
			log.Error("request failed", logPath, r.URL.Path, logFault, fault, logStack, string(debug.Stack()))
			writeError(w, errInternal())
		}()
		next.ServeHTTP(w, r)
	})
}
