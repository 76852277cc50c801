package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/coder/websocket"
)

// wire is a client of callbox.v1 that behaves as docs/protocol.md asks: it numbers, acknowledges, and comes back after a
// lost connection with what it has. It stays as long as its test.
type wire struct {
	t    *testing.T
	name string
	dial func(ctx context.Context) (*websocket.Conn, error)

	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	conn     *websocket.Conn // guarded by mu, as is everything below; nil while there is no welcomed connection
	peer     string
	resume   string
	handled  uint64
	sent     uint64
	outbox   []outgoing
	messages []message
	welcomes []message
	faults   []string // what the server did against the protocol
	end      error    // why it will not come back
	awake    chan struct{}
}

type outgoing struct {
	seq  uint64
	data []byte
}

// message is any message of the server; fields that its type does not have are empty.
type message struct {
	Type     string          `json:"type"`
	Seq      uint64          `json:"seq"`
	ID       string          `json:"id"`
	Peer     json.RawMessage `json:"peer"`
	Peers    []member        `json:"peers"`
	Room     string          `json:"room"`
	From     json.RawMessage `json:"from"`
	To       string          `json:"to"`
	Data     json.RawMessage `json:"data"`
	Code     string          `json:"code"`
	Field    string          `json:"field"`
	Message  string          `json:"message"`
	Reason   string          `json:"reason"`
	Call     string          `json:"call"`
	Resume   string          `json:"resume"`
	Resumed  bool            `json:"resumed"`
	Received uint64          `json:"received"`
	Version  uint64          `json:"version"`
	Relay    string          `json:"relay"`
	User     string          `json:"user"`
	Servers  []struct {
		URLs       []string `json:"urls"`
		Username   string   `json:"username"`
		Credential string   `json:"credential"`
	} `json:"iceServers"`
}

type member struct{ Peer, User, Name string }

func (m message) text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return string(raw)
	}
	return s
}

// entrance says how a client comes to /ws.
type entrance struct {
	urls   []string // of servers or load balancers; each connection goes to the next one
	client *http.Client
	token  string
	header http.Header
}

func (e entrance) dialer() func(context.Context) (*websocket.Conn, error) {
	next := 0
	return func(ctx context.Context) (*websocket.Conn, error) {
		url := e.urls[next%len(e.urls)]
		next++
		o := &websocket.DialOptions{HTTPClient: e.client, HTTPHeader: e.header, Subprotocols: []string{"callbox.v1"}}
		if e.token != "" {
			o.Subprotocols = append(o.Subprotocols, "token."+e.token)
		}
		conn, response, err := websocket.Dial(ctx, url+"/ws", o)
		if err != nil {
			if response != nil {
				return nil, fmt.Errorf("%s: %w", response.Status, err)
			}
			return nil, err
		}
		conn.SetReadLimit(1 << 20)
		return conn, nil
	}
}

// connect opens a session and returns when it is welcomed.
func connect(t *testing.T, name string, e entrance) *wire {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w := &wire{t: t, name: name, dial: e.dialer(), stop: stop, done: make(chan struct{}), awake: make(chan struct{}, 1)}
	go w.run(ctx)
	t.Cleanup(func() { stop(); <-w.done })
	w.until(20*time.Second, "is welcomed", func() bool { return len(w.welcomes) > 0 })
	return w
}

func (w *wire) run(ctx context.Context) {
	defer close(w.done)
	pause := 50 * time.Millisecond
	for ctx.Err() == nil {
		welcomed, err := w.session(ctx)
		if welcomed {
			pause = 50 * time.Millisecond
		}
		switch websocket.CloseStatus(err) {
		case 1000, 4000, 4001, 4002, 4004:
			w.mu.Lock()
			w.end = err
			w.mu.Unlock()
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		case <-w.awake: // the test wants it back now
			timer.Stop()
		}
		pause = min(2*pause, time.Second)
	}
}

func (w *wire) session(ctx context.Context) (welcomed bool, err error) {
	opening, cancel := context.WithTimeout(ctx, 5*time.Second)
	conn, err := w.dial(opening)
	cancel()
	if err != nil {
		return false, err
	}
	defer func() {
		w.mu.Lock()
		w.conn = nil
		w.mu.Unlock()
		_ = conn.CloseNow()
	}()
	hello := map[string]any{"type": "hello", "name": w.name}
	w.mu.Lock()
	if w.resume != "" {
		hello["resume"] = map[string]any{"token": w.resume, "seq": w.handled}
	}
	w.mu.Unlock()
	if err := write(ctx, conn, hello); err != nil {
		return false, err
	}
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return welcomed, err
		}
		var m message
		if err := json.Unmarshal(data, &m); err != nil {
			w.fault("not JSON: %s", data)
			continue
		}
		if m.Type == "welcome" {
			welcomed = true
			if err := w.welcome(ctx, conn, m); err != nil {
				return welcomed, err
			}
			continue
		}
		if m.Type == "goaway" {
			return welcomed, errors.New("goaway")
		}
		if w.take(m) {
			if err := write(ctx, conn, map[string]any{"type": "ack", "seq": m.Seq}); err != nil {
				return welcomed, err
			}
		}
	}
}

func (w *wire) welcome(ctx context.Context, conn *websocket.Conn, m message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.welcomes = append(w.welcomes, m)
	w.peer, w.resume = m.text(m.Peer), m.Resume
	if !m.Resumed {
		// A new session: numbers start again, and what was on its way is said again under new numbers.
		w.handled = m.Seq
		w.sent = 0
		w.outbox = nil
	}
	w.outbox = slices.DeleteFunc(w.outbox, func(o outgoing) bool { return o.seq <= m.Received })
	// Under the lock: what send adds meanwhile must not overtake what is said again, which would leave a gap in the numbers.
	for _, o := range w.outbox {
		if err := conn.Write(ctx, websocket.MessageText, o.data); err != nil {
			return err
		}
	}
	w.conn = conn
	return nil
}

// take handles one message in order; it tells whether the message is to be acknowledged.
func (w *wire) take(m message) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case m.Type == "ack":
		w.outbox = slices.DeleteFunc(w.outbox, func(o outgoing) bool { return o.seq <= m.Seq })
		return false
	case m.Seq == 0:
		w.messages = append(w.messages, m)
		return false
	case m.Seq != w.handled+1:
		w.faults = append(w.faults, fmt.Sprintf("number %d (%s) after %d", m.Seq, m.Type, w.handled))
		return false
	}
	w.handled = m.Seq
	w.messages = append(w.messages, m)
	return true
}

func (w *wire) fault(format string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, a...))
}

func write(ctx context.Context, conn *websocket.Conn, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return conn.Write(ctx, websocket.MessageText, data)
}

// send numbers a message and keeps it until the server has it.
func (w *wire) send(v map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent++
	v["seq"] = w.sent
	data, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	w.outbox = append(w.outbox, outgoing{w.sent, data})
	if w.conn != nil {
		// A failed write ends the reader too, and the message goes out again after the resume.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = w.conn.Write(ctx, websocket.MessageText, data)
	}
}

// signal sends data to another peer.
func (w *wire) signal(to string, data any) {
	w.send(map[string]any{"type": "signal", "to": to, "data": data})
}

// drop closes the connection without a word.
func (w *wire) drop() {
	w.mu.Lock()
	conn := w.conn
	w.mu.Unlock()
	if conn != nil {
		_ = conn.CloseNow()
	}
}

// until waits for a condition that is looked at with mu held.
func (w *wire) until(within time.Duration, what string, ok func() bool) {
	w.t.Helper()
	testkit.Eventually(w.t, within, w.name+" "+what, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if ok() {
			return nil
		}
		if w.end != nil {
			return fmt.Errorf("it has ended: %w", w.end)
		}
		return fmt.Errorf("%d welcomes, %d messages, last %+v", len(w.welcomes), len(w.messages), last(w.messages))
	})
}

func last(all []message) message {
	if len(all) == 0 {
		return message{}
	}
	return all[len(all)-1]
}

// await waits for a message that matches, and returns the first such.
func (w *wire) await(within time.Duration, what string, match func(message) bool) message {
	w.t.Helper()
	var found message
	w.until(within, "gets "+what, func() bool {
		i := slices.IndexFunc(w.messages, match)
		if i < 0 {
			return false
		}
		found = w.messages[i]
		return true
	})
	return found
}

// id returns the peer id.
func (w *wire) id() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peer
}

// join enters a room and returns the answer.
func (w *wire) join(room string) message {
	w.t.Helper()
	id := fmt.Sprintf("join-%s-%d", room, time.Now().UnixNano())
	w.send(map[string]any{"type": "join", "room": room, "id": id})
	m := w.await(20*time.Second, "an answer to join", func(m message) bool { return m.ID == id })
	if m.Type != "joined" {
		w.t.Fatalf("%s: join %s: %+v", w.name, room, m)
	}
	return m
}

// signals returns the data of every signal from a peer, in the order of arrival.
func (w *wire) signals(from string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, m := range w.messages {
		if m.Type == "signal" && m.text(m.From) == from {
			all = append(all, string(m.Data))
		}
	}
	return all
}

// clean fails the test when the server has broken the protocol towards this client.
func (w *wire) clean() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) > 0 {
		w.t.Errorf("%s: %q", w.name, w.faults)
	}
}
