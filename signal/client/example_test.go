package client_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"callbox/bus/memory"
	"callbox/signal"
	"callbox/signal/client"
)

// hub is a server for the examples, where everybody is who they say; a real one is `callbox serve`.
func hub() (address string, stop func()) {
	b, err := memory.NewNetwork().Open(memory.Config{Name: "example"})
	if err != nil {
		log.Fatal(err)
	}
	h := signal.New(signal.Config{Bus: b})
	if err := b.Start(handler{h}); err != nil {
		log.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Serve(w, r, signal.Identity{User: r.URL.Query().Get("user"), Login: true})
	}))
	return s.URL, func() { _ = h.Close(); s.Close(); _ = b.Close() }
}

type handler struct{ *signal.Hub }

func (handler) Changed(bucket, key string) {}

// A bot that answers whatever it is sent, for as long as it is wanted.
func Example() {
	address, stop := hub()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// In a real program: client.Dial(ctx, "https://calls.example.org", client.Options{Token: token})
	bot, err := client.Dial(ctx, address+"/ws?user=bot", client.Options{Name: "Echo"})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = bot.Close() }()
	if _, err := bot.Join(ctx, "tea"); err != nil {
		log.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			e, err := bot.Next(ctx)
			if err != nil {
				return // client.ErrClosed, once the bot is closed
			}
			if s, ok := e.(client.Signal); ok {
				if err := bot.Signal(ctx, s.From, s.Data); err != nil {
					return
				}
			}
		}
	}()

	ada, err := client.Dial(ctx, address+"/ws?user=ada", client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = ada.Close() }()
	room, err := ada.Join(ctx, "tea")
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range room.Peers {
		if p.User != "bot" {
			continue
		}
		fmt.Println("meets", p.Name)
		if err := ada.Signal(ctx, p.ID, map[string]string{"text": "hello"}); err != nil {
			log.Fatal(err)
		}
	}
	for {
		e, err := ada.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if s, ok := e.(client.Signal); ok {
			fmt.Println("hears", string(s.Data))
			break
		}
	}
	_ = bot.Close()
	<-ended
	// Output:
	// meets Echo
	// hears {"text":"hello"}
}

// Ringing a user by name.
func ExampleClient_Call() {
	address, stop := hub()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dial := func(user string) *client.Client {
		c, err := client.Dial(ctx, address+"/ws?user="+user, client.Options{})
		if err != nil {
			log.Fatal(err)
		}
		return c
	}
	ada, bob := dial("ada"), dial("bob")
	defer func() { _, _ = ada.Close(), bob.Close() }()

	if _, _, err := ada.Call(ctx, "bob", "tea"); err != nil {
		log.Fatal(err)
	}
	for answered := false; !answered; {
		e, err := bob.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if ring, ok := e.(client.Ring); ok {
			fmt.Println("bob is called by", ring.From.User)
			room, err := bob.Accept(ctx, ring.Call)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println("and goes to", room)
			answered = true
		}
	}
	// Output:
	// bob is called by ada
	// and goes to tea
}
