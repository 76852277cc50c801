package signal

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"callbox/bus"

	"github.com/coder/websocket"
)

// peerjs is the protocol of PeerServer, for npm peerjs 1.5.
type peerjs struct{ foreign }

// PeerJSKey is the key that clients give, unless they are told another: there is only this one.
const PeerJSKey = "peerjs"

const (
	peerjsSpace = namedPrefix + "peerjs/"
	maxPeerJSID = 256

	// What a client is told on refusal, in the words that it and applications may know.
	peerjsMissing = "No id, token, or key supplied to websocket server"
	peerjsBadKey  = "Invalid key provided"
	peerjsFull    = "Server has reached its concurrent user limit"
	peerjsTaken   = "ID is taken"
)

// Admit says who a client is from the token it gives, and what of it proves an id to be his. False: nobody.
type Admit func(token string) (id Identity, proof string, ok bool)

// ServePeerJS upgrades a request for the WebSocket of PeerServer and returns; the hub owns the connection from then on.
// The caller has checked the origin.
func (h *Hub) ServePeerJS(w http.ResponseWriter, r *http.Request, admit Admit) {
	q := r.URL.Query()
	id, token := strings.Clone(q.Get("id")), strings.Clone(q.Get("token"))
	who, proof, refusal := admitPeerJS(q, id, token, admit)
	still := who.Still
	who.Still = nil
	h.accept(w, r, who, peerjs{}, nil, func(c *conn) {
		switch {
		case refusal != "":
			h.stats.of(c.proto).refuse(refusedToken)
			c.turnAway(peerjsError("ERROR", refusal))
		default:
			c.beginPeerJS(id, proof, still)
		}
		h.goOn(c)
	})
}

func admitPeerJS(q url.Values, id, token string, admit Admit) (who Identity, proof, refusal string) {
	switch {
	case q.Get("key") == "" || token == "" || !peerjsID(id):
		return Identity{Open: true}, "", peerjsMissing
	case q.Get("key") != PeerJSKey:
		return Identity{Open: true}, "", peerjsBadKey
	}
	who, proof, ok := admit(token)
	if !ok {
		return Identity{Open: true}, "", peerjsBadKey
	}
	return who, proof, ""
}

// beginPeerJS registers the client under its id. Its time is that of the connection's first goroutine.
func (c *conn) beginPeerJS(id, proof string, still func() bool) {
	h := c.hub
	sum := sha256.Sum256([]byte("callbox peerjs\x00" + proof))
	sec := secrets{peer: peerjsSpace + c.id.Room + "/" + id, proof: sum[:]}
	err := h.open(c, sec, func(s *session, g bus.Grant) error {
		h.takeNamed(c, s, g)
		return nil
	})
	switch {
	case err == nil:
		h.verified(c.s.Load(), still)
	case errors.Is(err, errTaken):
		h.stats.of(c.proto).refuse(refusedTaken)
		c.turnAway(peerjsError("ID-TAKEN", peerjsTaken))
	default:
		c.shutdown(closeTryLater, "try again later")
	}
}

// peerjsID says whether an id is one: letters and digits, with single spaces, hyphens and underscores between them.
func peerjsID(id string) bool {
	if id == "" || len(id) > maxPeerJSID {
		return false
	}
	between := true // also at the start
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
			between = false
		case (c == ' ' || c == '-' || c == '_') && !between:
			between = true
		default:
			return false
		}
	}
	return !between
}

func peerjsError(typ, msg string) string {
	return `{"type":"` + typ + `","payload":{"msg":"` + msg + `"}}`
}

func (peerjs) name() string { return "peerjs" }
func (peerjs) index() int   { return protoPeerJS }

// full tells a client why it is not admitted, which takes a WebSocket.
func (peerjs) full(h *Hub, w http.ResponseWriter, r *http.Request) bool {
	select {
	case h.turnedAway <- struct{}{}:
		defer func() { <-h.turnedAway }()
	default:
		return false // many at a time get no WebSocket
	}
	h.stats.of(peerjs{}).refuse(refusedFull)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if ws.Write(ctx, websocket.MessageText, []byte(peerjsError("ERROR", peerjsFull))) == nil {
		_ = ws.Close(websocket.StatusTryAgainLater, "full")
	}
	_ = ws.CloseNow()
	return true
}

func (peerjs) append(b []byte, s *session, _ uint64, e *event) []byte {
	switch e.kind {
	case evWelcome:
		return append(b, `{"type":"OPEN"}`...)
	case evSignal:
		return append(b, e.data...)
	case evUndeliverable:
		b = append(b, `{"type":"EXPIRE","src":`...)
		space := spaceOf(s.peer)
		b = appendQuoted(b, e.to[len(space):])
		b = append(b, `,"dst":`...)
		b = appendQuoted(b, s.peer[len(space):])
		return append(b, '}')
	}
	return b
}

// spaceOf is what stands before the id that a client knows: the ids of one room's tokens are apart from those of another's.
func spaceOf(peer string) string { return peer[:strings.LastIndexByte(peer, '/')+1] }

// peerjsMessage is one message of a client, as the raw JSON values of its members; nil: missing.
type peerjsMessage struct {
	typ, dst, payload []byte
}

// decodePeerJS reads one frame. False: it is not a JSON object.
func decodePeerJS(frame []byte) (m peerjsMessage, ok bool) {
	if !utf8.Valid(frame) {
		return m, false
	}
	s := scanner{b: frame}
	ok = s.object(func(key, value []byte) {
		switch string(key) {
		case "type":
			m.typ = value
		case "dst":
			m.dst = value
		case "payload":
			m.payload = value
		}
	})
	return m, ok
}

func (p peerjs) message(c *conn, v verdict, _ websocket.MessageType, b []byte) {
	h := c.hub
	s := c.s.Load()
	if v == refuse {
		h.stats.of(p).refuse(refusedRate)
		time.Sleep(ratePause) // back pressure: the client's own TCP queue fills
		return
	}
	m, ok := decodePeerJS(b) // binary or not, as PeerServer does
	if s == nil || !ok {
		h.stats.of(p).ignored.Add(1)
		return
	}
	quiet := false
	switch string(m.typ) {
	case `"OFFER"`, `"ANSWER"`, `"CANDIDATE"`:
	case `"LEAVE"`, `"EXPIRE"`:
		quiet = true
	case `"HEARTBEAT"`:
		return
	default:
		h.stats.of(p).ignored.Add(1)
		return
	}
	dst, isText := unquote(m.dst)
	switch {
	case isText && peerjsID(dst):
	case string(m.typ) == `"LEAVE"` && (m.dst == nil || string(m.dst) == "null" || isText && dst == ""):
		h.end(s, reasonLeft, closeNormal, "bye")
		return
	case isText && string(m.typ) == `"OFFER"` && dst != "" && len(dst) <= maxPeerJSID: // nobody can have that id; its user is waiting
		h.stats.undeliverable(reasonGone)
		s.tell(&event{kind: evUndeliverable, to: spaceOf(s.peer) + dst})
		return
	default:
		h.stats.of(p).ignored.Add(1)
		return
	}
	h.sendPeerJS(c, s, &m, dst, quiet)
}

// sendPeerJS passes a message on: the envelope is written anew around the payload's bytes.
func (h *Hub) sendPeerJS(c *conn, s *session, m *peerjsMessage, dst string, quiet bool) {
	buf := h.buffers.get()
	defer h.buffers.put(buf)
	space := spaceOf(s.peer)
	b := append((*buf)[:0], space...)
	b = append(b, dst...)
	to := len(b)
	b = append(b, `{"type":`...)
	b = append(b, m.typ...)
	b = append(b, `,"src":"`...) // an id has nothing to escape
	b = append(b, s.peer[len(space):]...)
	b = append(b, `","dst":"`...)
	b = append(b, dst...)
	b = append(b, '"')
	if m.payload != nil {
		b = append(b, `,"payload":`...)
		b = append(b, m.payload...)
	}
	b = append(b, '}')
	*buf = b
	h.sendNamed(c, s, b[:to], b[to:], quiet)
}
