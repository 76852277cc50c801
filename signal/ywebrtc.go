package signal

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"callbox/bus"

	"github.com/coder/websocket"
)

// ywebrtc is the protocol of y-webrtc's signaling server: topics, and publications that reach all their subscribers. A
// topic is a room.
type ywebrtc struct{ foreign }

const (
	ywebrtcSpace = namedPrefix + "y/"
	topicPeers   = 1000 // subscribers of a topic
	longTopic    = 256  // bytes; longer ones are known by their hash
)

// ServeYWebRTC upgrades a request for the WebSocket of y-webrtc's signaling server and returns; the hub owns the
// connection from then on. The caller has checked the origin and who it is.
func (h *Hub) ServeYWebRTC(w http.ResponseWriter, r *http.Request, id Identity) {
	still := id.Still
	id.Still = nil
	h.accept(w, r, id, ywebrtc{}, nil, func(c *conn) {
		if h.open(c, stranger(ywebrtcSpace), nil) != nil {
			c.shutdown(closeTryLater, "try again later")
		} else {
			h.verified(c.s.Load(), still)
		}
		h.goOn(c)
	})
}

func (ywebrtc) name() string                     { return "y-webrtc" }
func (ywebrtc) index() int                       { return protoYWebRTC }
func (ywebrtc) roomSize(_ string, l *Limits) int { return max(topicPeers, l.PeersPerRoom) }

func (ywebrtc) append(b []byte, _ *session, _ uint64, e *event) []byte {
	switch e.kind {
	case evBroadcast:
		return append(b, e.data...)
	case evPong:
		return append(b, `{"type":"pong"}`...)
	}
	return b
}

// ywebrtcMessage is one message of a client.
type ywebrtcMessage struct {
	typ    string
	topics []string // of subscribe and unsubscribe
	topic  string   // of publish
}

// decodeYWebRTC reads one frame. False: it is not one of the protocol.
func decodeYWebRTC(frame []byte) (m ywebrtcMessage, ok bool) {
	if !utf8.Valid(frame) {
		return m, false
	}
	var typ, topics, topic []byte
	s := scanner{b: frame}
	if !s.object(func(key, value []byte) {
		switch string(key) {
		case "type":
			typ = value
		case "topics":
			topics = value
		case "topic":
			topic = value
		}
	}) {
		return m, false
	}
	m.typ, _ = unquote(typ)
	switch m.typ {
	case "subscribe", "unsubscribe":
		var list []any
		if json.Unmarshal(topics, &list) != nil {
			return m, false
		}
		for _, t := range list {
			if t, ok := t.(string); ok && t != "" {
				m.topics = append(m.topics, t)
			}
		}
		return m, true
	case "publish":
		m.topic, ok = unquote(topic)
		return m, ok && m.topic != ""
	}
	return m, m.typ == "ping"
}

// withClients is the object in frame with the member clients set: where it was, else at the end. The object was scanned before.
func withClients(b, frame []byte, clients int) []byte {
	const name = "clients"
	b = append(b, '{')
	set := false
	member := func(key, value []byte) {
		if string(key) == name {
			if set {
				return
			}
			set, value = true, strconv.AppendInt(nil, int64(clients), 10)
		}
		b = append(append(append(b, '"'), key...), '"', ':')
		b = append(append(b, value...), ',')
	}
	s := scanner{b: frame}
	s.object(member)
	if !set {
		member([]byte(name), nil)
	}
	b[len(b)-1] = '}'
	return b
}

func (p ywebrtc) message(c *conn, v verdict, _ websocket.MessageType, b []byte) {
	h, s := c.hub, c.s.Load()
	if v == refuse {
		h.stats.of(p).refuse(refusedRate)
		time.Sleep(ratePause)
		return
	}
	m, ok := decodeYWebRTC(b) // binary or not, as y-webrtc's server does
	if s == nil || !ok {
		h.stats.of(p).ignored.Add(1)
		return
	}
	switch m.typ {
	case "ping":
		c.control(s, &event{kind: evPong})
	case "subscribe":
		for _, topic := range m.topics {
			h.subscribe(c, s, topic)
		}
	case "unsubscribe":
		for _, topic := range m.topics {
			_ = h.leave(s, topicRoom(topic), "") // who is not in it is out of it
		}
	case "publish":
		if !c.mayUse(m.topic) {
			h.stats.of(p).refuse(refusedToken)
			return
		}
		h.publish(s, topicRoom(m.topic), b)
	}
}

// mayUse says whether the client's token is for a topic.
func (c *conn) mayUse(topic string) bool { return c.id.Room == "" || c.id.Room == topic }

// topicRoom is the room of a topic.
func topicRoom(topic string) string {
	if len(topic) > longTopic {
		sum := sha256.Sum256([]byte(topic))
		topic = "\x00" + base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return ywebrtcSpace + topic
}

func (h *Hub) subscribe(c *conn, s *session, topic string) {
	name := topicRoom(topic)
	h.mu.RLock()
	in, count := h.inRoomLocked(s, name) != nil, len(s.rooms)
	h.mu.RUnlock()
	counters := h.stats.of(c.proto)
	switch {
	case in:
	case !c.mayUse(topic):
		counters.refuse(refusedToken)
	case count >= h.limits.RoomsPerPeer:
		counters.refuse(refusedFull)
	default:
		if err := h.enter(s, name, true, func(*room, bus.Room) {}); err != nil {
			counters.refuse(refusedFull)
			h.log.Debug("topic not subscribed to", logRoom, name, logError, err)
		}
	}
}

// publish sends a message to all subscribers of a topic on all nodes, its sender among them.
func (h *Hub) publish(s *session, name string, frame []byte) {
	var targets []*session
	var nodes []bus.NodeID
	clients := 0
	h.mu.RLock()
	r := h.rooms[name]
	if r != nil {
		targets, nodes = r.localLocked(nil, ""), r.nodesLocked(h.self)
		for _, m := range r.members {
			if m.there() {
				clients++
			}
		}
	}
	h.mu.RUnlock()
	if r == nil { // nobody here has subscribed, so it is known elsewhere only
		ctx, cancel := context.WithTimeout(h.ctx, h.limits.BusTimeout)
		now, err := h.bus.Room(ctx, name)
		cancel()
		if err != nil {
			h.log.Debug("not published", logRoom, name, logError, err)
			return
		}
		clients = len(now.Members)
		for i := range now.Members {
			if n := now.Members[i].Node; n != h.self && !slices.Contains(nodes, n) {
				nodes = append(nodes, n)
			}
		}
	}
	buf := h.buffers.get()
	defer h.buffers.put(buf)
	*buf = withClients((*buf)[:0], frame, clients)
	p := packet{kind: pkCast, from: s.peer, room: name, sid: s.sid, data: *buf}
	p.n, p.prev = s.next(castKey(name, ""))
	h.toNodes(nodes, &p)
	h.stats.remote.Add(uint64(len(nodes)))
	p.node = h.self
	for _, t := range targets {
		h.hand(t, &p)
	}
}
