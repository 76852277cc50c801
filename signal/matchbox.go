package signal

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"callbox/bus"

	"github.com/coder/websocket"
)

// matchbox is the protocol of matchbox_server 0.14: rooms, in which those who are there offer to who comes.
type matchbox struct{ foreign }

const (
	matchboxSpace = namedPrefix + "matchbox/"
	maxGroups     = 4096 // rooms of which is remembered how many groups are full
	groupTries    = 1000
)

// ServeMatchbox upgrades a request for a matchbox room and returns; the hub owns the connection from then on. The caller
// has checked the origin and who it is. next above zero groups clients in rooms of so many, in the order they come.
func (h *Hub) ServeMatchbox(w http.ResponseWriter, r *http.Request, id Identity, room string, next int) {
	still := id.Still
	id.Still = nil
	name := matchboxSpace + strings.Clone(room)
	h.accept(w, r, id, matchbox{}, nil, func(c *conn) {
		err := h.open(c, stranger(matchboxSpace), nil)
		if err == nil {
			h.verified(c.s.Load(), still)
			err = h.enterMatchbox(c.s.Load(), name, next)
		}
		switch {
		case err == nil:
		case errors.Is(err, bus.ErrRoomFull):
			h.stats.of(c.proto).refuse(refusedFull)
			c.finish(closeTryLater, "the room is full")
		default:
			c.finish(closeTryLater, "try again later")
		}
		h.goOn(c)
	})
}

func (matchbox) name() string { return "matchbox" }
func (matchbox) index() int   { return protoMatchbox }

// groupMark stands between the name of a room and its groups.
const groupMark = "\x00next="

func groupsOf(name string, next int) string { return name + groupMark + strconv.Itoa(next) + "/" }

func (matchbox) roomSize(name string, l *Limits) int {
	_, group, ok := strings.Cut(name, groupMark)
	if !ok {
		return l.PeersPerRoom
	}
	size, _, _ := strings.Cut(group, "/")
	n, err := strconv.Atoi(size)
	if err != nil {
		return l.PeersPerRoom
	}
	return n
}

// enterMatchbox joins the room, or the group that is being filled.
func (h *Hub) enterMatchbox(s *session, name string, next int) error {
	if next == 0 {
		return h.enter(s, name, true, func(*room, bus.Room) {})
	}
	groups := groupsOf(name, next)
	h.mu.RLock()
	first := h.groups[groups]
	h.mu.RUnlock()
	for group := first; group < first+groupTries; group++ {
		complete := false
		err := h.enter(s, groups+strconv.FormatUint(group, 10), true, func(_ *room, now bus.Room) {
			complete = len(now.Members) >= next
		})
		if errors.Is(err, bus.ErrRoomFull) {
			continue
		}
		if err == nil && complete { // whoever leaves it later is not replaced
			h.groupFull(groups, group+1)
			for _, n := range h.bus.Nodes() {
				if n.ID != h.self {
					h.tellNode(n.ID, &packet{kind: pkGroup, room: groups, n: group + 1})
				}
			}
		}
		return err
	}
	return bus.ErrRoomFull
}

// groupFull remembers which group is to be filled next.
func (h *Hub) groupFull(groups string, next uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.groups) >= maxGroups && h.groups[groups] == 0 {
		clear(h.groups)
	}
	h.groups[groups] = max(h.groups[groups], next)
}

func (matchbox) append(b []byte, s *session, _ uint64, e *event) []byte {
	event := func(name, peer string) []byte {
		b = append(b, `{"`...)
		b = append(b, name...)
		b = append(b, `":"`...)
		b = append(b, uuidOf(peer)...)
		return append(b, `"}`...)
	}
	switch e.kind {
	case evWelcome:
		return event("IdAssigned", s.peer)
	case evPeerJoined:
		return event("NewPeer", e.who.peer)
	case evPeerLeft:
		return event("PeerLeft", e.who.peer)
	case evSignal:
		return append(b, e.data...)
	}
	return b
}

// decodeMatchbox reads one frame: a signal's receiver, and its data as a raw JSON value. False: it is none.
func decodeMatchbox(frame []byte) (receiver string, data []byte, ok bool) {
	if !utf8.Valid(frame) {
		return "", nil, false
	}
	var signal, to []byte
	s := scanner{b: frame}
	if !s.object(func(key, value []byte) {
		if string(key) == "Signal" {
			signal = value
		}
	}) {
		return "", nil, false
	}
	s = scanner{b: signal}
	if !s.object(func(key, value []byte) {
		switch string(key) {
		case "receiver":
			to = value
		case "data":
			data = value
		}
	}) {
		return "", nil, false
	}
	receiver, ok = unquote(to)
	return receiver, data, ok && data != nil
}

func (p matchbox) message(c *conn, v verdict, typ websocket.MessageType, b []byte) {
	h, s := c.hub, c.s.Load()
	if v == refuse {
		h.stats.of(p).refuse(refusedRate)
		time.Sleep(ratePause)
		return
	}
	if string(b) == `"KeepAlive"` {
		return
	}
	receiver, data, ok := decodeMatchbox(b)
	if s == nil || !ok || typ != websocket.MessageText {
		h.stats.of(p).ignored.Add(1)
		return
	}
	to := matchboxSpace + strings.ToLower(receiver)
	var node bus.NodeID
	h.mu.RLock()
	for _, r := range s.rooms {
		if m := r.members[to]; m != nil {
			node = m.node
		}
	}
	h.mu.RUnlock()
	if node == "" {
		h.stats.of(p).ignored.Add(1)
		return
	}
	buf := h.buffers.get()
	defer h.buffers.put(buf)
	f := append((*buf)[:0], `{"Signal":{"sender":"`...)
	f = append(f, uuidOf(s.peer)...)
	f = append(f, `","data":`...)
	f = append(f, data...)
	*buf = append(f, "}}"...)
	h.sendTo(c, s, to, node, *buf)
}
