package app

import (
	"context"
	"encoding/json"
	"time"

	"callbox/internal/webhook"
	"callbox/signal"
)

// hookBody is an event as receivers get it (docs/webhooks.md).
type hookBody struct {
	ID      string    `json:"id"`
	Event   string    `json:"event"`
	At      time.Time `json:"at"`
	Node    string    `json:"node"`
	Room    string    `json:"room"`
	Version uint64    `json:"version"`
	Peer    *hookPeer `json:"peer,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

type hookPeer struct {
	Peer string `json:"peer"`
	User string `json:"user"`
	Name string `json:"name"`
}

// openHooks starts what tells other programs, where any is to be told.
func (a *App) openHooks() {
	if len(a.cfg.Webhooks) == 0 || a.opts.Patient {
		return
	}
	urls := make([]string, len(a.cfg.Webhooks))
	for i, u := range a.cfg.Webhooks {
		urls[i] = string(u)
	}
	a.hooks = webhook.New(webhook.Config{
		URLs: urls, Log: a.log,
		Sign: func() (id, secret string, ok bool) { return a.web.keys.Signer(a.cfg.WebhookKey) },
	})
}

// closeHooks tells what is left to tell, as far as it can in a moment.
func (a *App) closeHooks() error {
	if a.hooks == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	a.hooks.Close(ctx)
	return nil
}

// watchRooms is what the hub tells of rooms; nil where nobody is to hear.
func (a *App) watchRooms() func(signal.RoomEvent) {
	if a.hooks == nil {
		return nil
	}
	node := a.cfg.NodeName
	return func(e signal.RoomEvent) {
		body := hookBody{Event: string(e.Change), At: e.At.UTC(), Node: node, Room: e.Room, Version: e.Version, Reason: e.Reason}
		if e.Peer != "" {
			body.Peer = &hookPeer{Peer: e.Peer, User: e.User, Name: e.Name}
		}
		a.hooks.Send(webhook.Event{Key: e.Room, Rank: e.Version, Body: func(id string) []byte {
			body.ID = id
			text, err := json.Marshal(body)
			if err != nil {
				return []byte("{}") // cannot be: texts, a number and a time
			}
			return text
		}})
	}
}

func (a *App) hookStats() webhook.Stats {
	if a.hooks == nil {
		return webhook.Stats{}
	}
	return a.hooks.Stats()
}
