package signal_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"callbox/bus/memory"
	"callbox/signal"

	"github.com/coder/websocket"
)

// events hands what the bus tells to the hub.
type events struct{ *signal.Hub }

func (events) Changed(bucket, key string) {}

// A server of one's own: it says who is who, the hub does the rest.
func Example() {
	b, err := memory.NewNetwork().Open(memory.Config{Name: "node1"})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	hub := signal.New(signal.Config{Bus: b})
	defer func() { _ = hub.Close() }()
	if err := b.Start(events{hub}); err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, ok := r.BasicAuth() // a real one checks the password, and the Origin
		if !ok {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		hub.Serve(w, r, signal.Identity{User: user, Login: true})
	}))
	defer server.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	url := strings.Replace(server.URL, "http://", "http://ada:secret@", 1)
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{signal.Subprotocol}})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"type":"hello"}`)); err != nil {
		log.Fatal(err)
	}
	_, welcome, err := conn.Read(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(welcome), `"user":"ada"`))
	// Output: true
}
