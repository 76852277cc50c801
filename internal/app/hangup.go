package app

import "context"

// followHangups does at each signal what the reload command does. A signal waits for no answer, so the log has it.
func (a *App) followHangups(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.opts.Hangup:
		}
		if _, err := a.reload(); err != nil {
			a.log.Error("configuration not read again", logError, err)
		}
	}
}
