package signal

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// robust is a client as docs/protocol.md wants it: numbers its requests, keeps what is not
// acknowledged, resumes on any node. It checks that every sender's messages
// come in order and once.
type robust struct {
	t     *testing.T
	name  string
	nodes func() *node // where to connect next

	mu       sync.Mutex
	ws       *websocket.Conn
	peer     string
	token    string
	seq      uint64 // last server number handled
	count    uint64 // own numbers
	unacked  []numbered
	peers    map[string]string // by user
	got      map[string]int    // last number by sending peer
	failures []string
	resumes  int
	lost     int // resumed: false
	stopped  bool
	done     chan struct{}
}

type numbered struct {
	n     uint64
	frame string
}

func startRobust(t *testing.T, name string, nodes func() *node) *robust {
	r := &robust{t: t, name: name, nodes: nodes, peers: map[string]string{}, got: map[string]int{}, done: make(chan struct{})}
	go r.run()
	return r
}

func (r *robust) fail(format string, args ...any) {
	r.failures = append(r.failures, r.name+": "+fmt.Sprintf(format, args...))
}

// run connects again and again until stop.
func (r *robust) run() {
	defer close(r.done)
	for {
		r.mu.Lock()
		if r.stopped {
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		r.once()
		<-time.After(time.Duration(rand.IntN(10)) * time.Millisecond) // its backoff
	}
}

func (r *robust) once() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n := r.nodes()
	ws, _, err := websocket.Dial(ctx, n.url("login=1&user="+r.name), &websocket.DialOptions{Subprotocols: []string{Subprotocol}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20)
	hello := map[string]any{"type": "hello"}
	r.mu.Lock()
	if r.token != "" {
		hello["resume"] = map[string]any{"token": r.token, "seq": r.seq}
	}
	r.mu.Unlock()
	b, _ := json.Marshal(hello)
	if ws.Write(ctx, websocket.MessageText, b) != nil {
		return
	}
	for {
		_, b, err := ws.Read(context.Background())
		if err != nil {
			r.mu.Lock()
			r.ws = nil
			r.mu.Unlock()
			return
		}
		var m message
		if json.Unmarshal(b, &m) != nil {
			return
		}
		m.raw = b
		r.handle(ws, &m)
	}
}

func (r *robust) handle(ws *websocket.Conn, m *message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.Type == "ack" {
		r.acked(m.Seq)
		return
	}
	if m.Type == "welcome" {
		if r.token != "" {
			r.resumes++
		}
		if !m.Resumed {
			if r.token != "" {
				r.lost++
			}
			r.seq, r.count, r.unacked = 0, 0, nil
		}
		r.token, r.peer, r.ws = m.Resume, m.peerID(), ws
		r.acked(m.Received)
		if !m.Resumed {
			r.request(`"type":"join","room":"storm"`)
		} else {
			for _, u := range r.unacked {
				r.write(u.frame)
			}
		}
	}
	if m.Seq > 0 {
		if m.Seq != r.seq+1 {
			r.fail("number %d follows %d: %s", m.Seq, r.seq, m.raw)
		}
		r.seq = m.Seq
		r.write(fmt.Sprintf(`{"type":"ack","seq":%d}`, m.Seq))
	}
	switch m.Type {
	case "joined":
		clear(r.peers)
		for _, p := range m.Peers {
			r.peers[p.User] = p.Peer
		}
	case "peer-joined":
		var p personJSON
		_ = json.Unmarshal(m.Peer, &p)
		r.peers[p.User] = p.Peer
	case "peer-left":
		for u, p := range r.peers {
			if p == m.peerID() {
				delete(r.peers, u)
			}
		}
	case "signal", "broadcast":
		key := m.Type + " " + m.from()
		var n int
		_ = json.Unmarshal(m.Data, &n)
		if last, known := r.got[key]; n != last+1 && known || n != 1 && !known && r.lost == 0 {
			r.fail("%s %d follows %d", key, n, last)
		}
		r.got[key] = n
	case "goaway": // the node ends: resume elsewhere within that time
		time.AfterFunc(time.Duration(m.AfterMs)*time.Millisecond, func() { _ = ws.CloseNow() })
	case "error", "undeliverable":
		r.fail("%s", m.raw)
	}
}

func (r *robust) acked(n uint64) {
	for len(r.unacked) > 0 && r.unacked[0].n <= n {
		r.unacked = r.unacked[1:]
	}
}

func (r *robust) write(frame string) {
	if r.ws == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if r.ws.Write(ctx, websocket.MessageText, []byte(frame)) != nil {
		r.ws = nil
	}
}

// request sends a numbered message, now or after the next resume.
func (r *robust) request(fields string) {
	r.count++
	frame := fmt.Sprintf(`{%s,"seq":%d}`, fields, r.count)
	r.unacked = append(r.unacked, numbered{r.count, frame})
	r.write(frame)
}

// cut loses the connection.
func (r *robust) cut() {
	r.mu.Lock()
	ws := r.ws
	r.mu.Unlock()
	if ws != nil {
		_ = ws.CloseNow()
	}
}

func (r *robust) stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.cut()
	for {
		select {
		case <-r.done:
			return
		case <-time.After(20 * time.Millisecond):
			r.cut()
		}
	}
}

// unhurried lets a storm go as fast as the machine is.
var unhurried = Limits{MessageRate: 1 << 20, MessageBytes: 1 << 30}

// storm is many robust clients in one room, each sending numbered signals to each and
// broadcasts to all.
type storm struct {
	t       *testing.T
	clients []*robust
}

func newStorm(t *testing.T, count int, nodes func() *node) *storm {
	t.Helper()
	s := &storm{t: t}
	for i := range count {
		s.clients = append(s.clients, startRobust(t, fmt.Sprintf("u%d", i), nodes))
	}
	t.Cleanup(s.stop)
	for _, r := range s.clients {
		eventually(t, "everybody is in the room", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.peers) == count
		})
	}
	return s
}

func (s *storm) stop() {
	for _, r := range s.clients {
		r.stop()
	}
}

// round sends message n from everybody to everybody.
func (s *storm) round(n int) {
	for _, r := range s.clients {
		r.mu.Lock()
		for user, peer := range r.peers {
			if user != r.name {
				r.request(fmt.Sprintf(`"type":"signal","to":%q,"data":%d`, peer, n))
			}
		}
		r.request(fmt.Sprintf(`"type":"broadcast","room":"storm","data":%d`, n))
		r.mu.Unlock()
	}
}

// settled waits until everybody has everything up to n, and reports what went wrong.
func (s *storm) settled(n int) {
	s.t.Helper()
	for _, r := range s.clients {
		eventually(s.t, r.name+" has everything", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.failures) > 0 {
				return true // reported below
			}
			for _, last := range r.got {
				if last != n {
					return false
				}
			}
			return len(r.got) == 2*(len(s.clients)-1)
		})
	}
	for _, r := range s.clients {
		r.mu.Lock()
		for i, f := range r.failures {
			if i < 5 {
				s.t.Error(f)
			}
		}
		r.mu.Unlock()
	}
}

func (s *storm) resumes() (resumes, lost int) {
	for _, r := range s.clients {
		r.mu.Lock()
		resumes += r.resumes
		lost += r.lost
		r.mu.Unlock()
	}
	return resumes, lost
}

func TestNothingIsLostDoubledOrReorderedWhileClientsRoam(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(t, nodes, unhurried)
			s := newStorm(t, 6, func() *node { return c.nodes[rand.IntN(nodes)] })
			rounds, start := 150, time.Now()
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			for n := 1; n <= rounds; n++ {
				<-pace.C
				s.round(n)
				if n%3 == 0 {
					s.clients[rand.IntN(len(s.clients))].cut()
				}
			}
			t.Log("sent", time.Since(start))
			s.settled(rounds)
			t.Log("settled", time.Since(start))
			for _, n := range c.nodes {
				st := n.hub.Stats()
				t.Logf("local %d remote %d received %d drops %v undeliverable %v resumed %v", st.Local, st.Remote, st.Received, st.Drops, st.Undeliverable, st.Resumed)
			}
			if resumes, lost := s.resumes(); resumes < 10 || lost > 0 {
				t.Errorf("%d resumes, %d sessions lost", resumes, lost)
			}
		})
	}
}
