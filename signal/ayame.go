package signal

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"callbox/bus"

	"github.com/coder/websocket"
)

// ayame is the protocol of Ayame, for npm @open-ayame/ayame-web-sdk: rooms of two. One value belongs to one connection.
type ayame struct {
	foreign
	admit      AdmitRoom
	standalone atomic.Bool // the client goes by itself when it is connected to its peer
}

const (
	ayameSpace    = namedPrefix + "ayame/"
	ayamePeers    = 2
	ayameBeat     = 5 * time.Second
	maxAyameRoom  = 256
	ayamePing     = "\x81\x0f" + `{"type":"ping"}` // a text frame
	ayameBye      = `{"type":"bye"}`
	rejectedFull  = "full"
	rejectedToken = "unauthorized"

	// reasonConnected: a standalone client has no more use for signaling; its call goes on.
	reasonConnected = "connected"
)

// AdmitRoom says who a client is from the key it gives for a room. False: nobody, or not there. The Identity's ICE is
// asked with the room as the bus knows it.
type AdmitRoom func(key, room string) (id Identity, ok bool)

// ServeAyame upgrades a request for Ayame's WebSocket and returns; the hub owns the connection from then on. The caller
// has checked the origin.
func (h *Hub) ServeAyame(w http.ResponseWriter, r *http.Request, admit AdmitRoom) {
	h.accept(w, r, Identity{Open: true}, &ayame{admit: admit}, nil, (*conn).run)
}

func (*ayame) name() string                 { return "ayame" }
func (*ayame) index() int                   { return protoAyame }
func (*ayame) roomSize(string, *Limits) int { return ayamePeers }

// returns: the client ends its call when the connection ends.
func (*ayame) returns() bool { return false }

func (p *ayame) heartbeat(l *Limits) heartbeat {
	if p.standalone.Load() {
		return p.foreign.heartbeat(l)
	}
	return heartbeat{every: ayameBeat, until: foreignSilence, frame: ayamePing}
}

func (*ayame) last(e *event) bool { return e.kind == evPeerLeft }

func (*ayame) append(b []byte, s *session, _ uint64, e *event) []byte {
	switch e.kind {
	case evSignal:
		return append(b, e.data...)
	case evPeerLeft:
		if e.reason != reasonConnected {
			return append(b, ayameBye...)
		}
	case evAdmitted:
		b = append(b, `{"type":"accept","connectionId":"`...)
		b = append(b, uuidOf(s.peer)...)
		if exist := e.number > 1; exist {
			b = append(b, `","isExistClient":true,"isExistUser":true`...)
		} else {
			b = append(b, `","isExistClient":false,"isExistUser":false`...)
		}
		if e.ice != nil {
			if servers, err := json.Marshal(e.ice.Servers); err == nil && len(e.ice.Servers) > 0 {
				b = append(append(b, `,"iceServers":`...), servers...)
			}
		}
		return append(b, '}')
	}
	return b
}

// ayameMessage is what is looked at of a client's message, as raw JSON values; nil: missing.
type ayameMessage struct {
	typ, room, signalingKey, key, standalone []byte
}

// decodeAyame reads one frame. False: it is not a JSON object.
func decodeAyame(frame []byte) (m ayameMessage, ok bool) {
	if !utf8.Valid(frame) {
		return m, false
	}
	s := scanner{b: frame}
	ok = s.object(func(name, value []byte) {
		switch string(name) {
		case "type":
			m.typ = value
		case "roomId":
			m.room = value
		case "signalingKey":
			m.signalingKey = value
		case "key":
			m.key = value
		case "standalone":
			m.standalone = value
		}
	})
	return m, ok
}

func (p *ayame) message(c *conn, v verdict, _ websocket.MessageType, b []byte) {
	h := c.hub
	if v == refuse {
		h.stats.of(p).refuse(refusedRate)
		time.Sleep(ratePause)
		return
	}
	m, ok := decodeAyame(b) // binary or not, as Ayame does
	s := c.s.Load()
	switch kind := string(m.typ); {
	case !ok:
		c.finish(closeProtocol, "not a JSON object")
	case s == nil && kind == `"register"`:
		p.register(c, &m)
	case s == nil:
		c.finish(closeProtocol, "the first message is register")
	case kind == `"offer"`, kind == `"answer"`, kind == `"candidate"`:
		h.sendOther(c, s, b)
	case kind == `"pong"`:
	case kind == `"connected"`:
		if p.standalone.Load() {
			h.end(s, reasonConnected, closeNormal, "")
		}
	default:
		c.finish(closeProtocol, "no such type")
	}
}

// register admits the client to its room.
func (p *ayame) register(c *conn, m *ayameMessage) {
	h := c.hub
	room, ok := unquote(m.room)
	if !ok || checkText(room, maxAyameRoom) != textOK {
		c.finish(closeProtocol, "roomId is missing or bad")
		return
	}
	key, ok := unquote(m.signalingKey)
	if !ok || key == "" {
		key, _ = unquote(m.key)
	}
	id, ok := p.admit(key, room)
	if !ok {
		h.stats.of(p).refuse(refusedToken)
		c.turnAway(`{"type":"reject","reason":"` + rejectedToken + `"}`)
		return
	}
	still := id.Still
	id.Still = nil
	h.mu.Lock()
	c.id = id
	h.mu.Unlock()
	p.standalone.Store(string(m.standalone) == "true")
	c.beatAt.Store(time.Now().Add(ayameBeat).UnixNano())
	err := h.open(c, stranger(ayameSpace), func(s *session, _ bus.Grant) error {
		return h.enterAyame(s, ayameSpace+strings.Clone(room))
	})
	switch {
	case err == nil:
		h.verified(c.s.Load(), still)
	case errors.Is(err, bus.ErrRoomFull):
		h.stats.of(p).refuse(refusedFull)
		c.turnAway(`{"type":"reject","reason":"` + rejectedFull + `"}`)
	default:
		c.shutdown(closeTryLater, "try again later")
	}
}

// enterAyame joins the room and says how it was found. What the other sends meanwhile waits: the answer comes first.
func (h *Hub) enterAyame(s *session, name string) error {
	there := 0
	err := h.enter(s, name, true, func(_ *room, now bus.Room) { there = len(now.Members) })
	if err != nil {
		return err
	}
	e := &event{kind: evAdmitted, number: uint64(there)}
	if id := s.identity(); id.ICE != nil && !id.Open {
		if ice, err := id.ICE(name); err == nil {
			e.ice = &ice
		} else {
			h.log.Warn("no ICE servers", logUser, s.who.user, logError, err)
		}
	}
	s.push(e)
	return nil
}

// sendOther passes a frame on as it is to the other members of the session's one room.
func (h *Hub) sendOther(c *conn, s *session, frame []byte) {
	type other struct {
		peer string
		node bus.NodeID
	}
	var others []other
	h.mu.RLock()
	for _, r := range s.rooms {
		for peer, m := range r.members {
			if peer != s.peer {
				others = append(others, other{peer, m.node})
			}
		}
	}
	h.mu.RUnlock()
	slices.SortFunc(others, func(a, b other) int { return strings.Compare(a.peer, b.peer) })
	for _, o := range others {
		h.sendTo(c, s, o.peer, o.node, frame)
	}
}
