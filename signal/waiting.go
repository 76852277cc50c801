package signal

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"callbox/bus"
)

// Peer ids of other servers' protocols begin with namedPrefix, which no id that this server chooses does; so do the
// rooms of those protocols, and no room of callbox.v1.
const (
	namedPrefix = "@"
	// waitFor is how long a message waits for a peer that is not there.
	waitFor = 5 * time.Second

	waitingPerName   = 256       // messages that wait for one name
	waitingNameBytes = 1 << 20   // their bytes
	waitingTotal     = 16 << 10  // messages that wait on this node
	waitingBytes     = 64 << 20  // their bytes
	maxPlaces        = 100 << 10 // names of which is remembered where they are
)

// named says whether a peer id was chosen by a client.
func named(peer string) bool { return strings.HasPrefix(peer, namedPrefix) }

// waiting is what waits for one name, in order of arrival, but each sender's in its own order. Owned by Hub.mu.
type waiting struct {
	packets []packet
	bytes   int
	until   map[string]time.Time // by sender: when its messages are given up, all of them together
	asking  bool                 // the directory is being asked, or what waits is being sent on
	again   bool                 // to be asked again by the ticker
	not     bus.NodeID           // was found not to hold the name, whatever the directory says, until it is asked again
}

// await keeps a message for a name that is not here and of which is not known where it is; not, if given, is a node where it
// is not. Who registers under that name in time gets it, on whatever node; else the sender hears of it, once.
func (h *Hub) await(p *packet, not bus.NodeID) {
	if p.node == "" {
		p.node = h.self
	}
	far := p.node != h.self // then its sender's node is to look for the name
	h.mu.Lock()
	if s := h.sessions[p.to]; s != nil {
		h.mu.Unlock()
		h.hand(s, p)
		return
	}
	if not != "" {
		h.unforwardLocked(p.to) // where it had gone to it has ended, or with that node
	}
	if f := h.moved[p.to]; f != nil {
		h.mu.Unlock()
		if far {
			h.tellNode(p.node, &packet{kind: pkStray, peer: p.to})
		}
		h.dispatch(f.node, *p)
		return
	}
	if far {
		h.mu.Unlock()
		if h.handBack(p) {
			return
		}
		h.mu.Lock() // then here, for whoever comes
	}
	w := h.waiting[p.to]
	if w != nil && !w.asking && !w.again && p.reason == reasonQuiet { // nobody holds the name
		h.mu.Unlock()
		return
	}
	size := len(p.data) + frameOverhead
	if h.waitingCount >= waitingTotal || h.waitingBytes+size > waitingBytes ||
		w != nil && (len(w.packets) >= waitingPerName || w.bytes+size > waitingNameBytes) {
		told := w != nil && !w.until[p.from].IsZero() // it will be
		h.mu.Unlock()
		h.stats.drop(dropWaiting)
		if !told {
			h.refuse(p, reasonGone)
		}
		return
	}
	if w == nil {
		w = &waiting{until: make(map[string]time.Time)}
		h.waiting[p.to] = w
	}
	if not != "" {
		w.not = not
	}
	until, known := w.until[p.from]
	if !known {
		until = time.Now().Add(waitFor)
		if p.time != 0 { // it has waited before
			until = unstamp(p.time)
		}
		w.until[p.from] = until
	}
	q := *p
	q.time = stamp(until)
	q.data = append([]byte(nil), p.data...)
	w.packets = slices.Insert(w.packets, w.place(&q), q)
	w.bytes += size
	h.waitingCount++
	h.waitingBytes += size
	ask := !w.asking && len(w.packets) == 1
	w.asking = w.asking || ask
	h.mu.Unlock()
	if ask {
		h.background(func(ctx context.Context) { h.find(ctx, q.to) })
	}
}

// place is where a message belongs: at the end, but before what its sender has sent later.
func (w *waiting) place(p *packet) int {
	at := len(w.packets)
	for i := at - 1; i >= 0; i-- {
		if q := &w.packets[i]; q.from == p.from && q.sid == p.sid {
			if q.version <= p.version {
				break
			}
			at = i
		}
	}
	return at
}

// handBack returns a message for a name that is not here to the node it came from: what one sender has sent to a name waits in
// one place, in order. False: it cannot be returned.
func (h *Hub) handBack(p *packet) bool {
	q := *p
	q.kind, q.peer, q.node = pkStray, p.to, ""
	return h.bus.Send(p.node, q.encode()) == nil
}

// strayed: a name is not on that node, which may hand back a message for it.
func (h *Hub) strayed(from bus.NodeID, p *packet) {
	h.forgetPlace(p.peer, from)
	if p.to == "" {
		return
	}
	p.kind, p.peer, p.node = pkSignal, "", h.self
	h.await(p, from)
}

// find asks the directory who holds a name, and to be told if nobody does.
func (h *Hub) find(ctx context.Context, name string) {
	node, _, err := h.bus.Locate(ctx, name, waitFor)
	h.mu.Lock()
	w := h.waiting[name]
	if w == nil {
		h.mu.Unlock()
		return
	}
	if err == nil && node != h.self && node != w.not {
		h.mu.Unlock()
		h.release(name, node)
		return
	}
	w.asking = false
	// The directory did not answer, or still has an entry for who has just gone.
	w.again = !errors.Is(err, bus.ErrNotFound)
	if !w.again { // only what its sender would miss waits for somebody to come
		h.dropLocked(name, w, func(p *packet) bool { return p.reason == reasonQuiet })
	}
	h.mu.Unlock()
}

// release sends on what waits for a name to the node that holds it. What comes meanwhile stays behind it.
func (h *Hub) release(name string, node bus.NodeID) {
	h.mu.Lock()
	if w := h.waiting[name]; w != nil && w.not == node {
		w.not = "" // it says otherwise now
	}
	h.mu.Unlock()
	for {
		h.mu.Lock()
		w := h.waiting[name]
		if w == nil || len(w.packets) == 0 {
			delete(h.waiting, name)
			if len(h.places) >= maxPlaces {
				clear(h.places)
			}
			h.places[name] = node
			h.mu.Unlock()
			return
		}
		if w.not == node { // it has come back, and waits for the ticker
			w.asking, w.again = false, true
			h.mu.Unlock()
			return
		}
		packets := h.takeWaitingLocked(w)
		w.asking = true
		h.mu.Unlock()
		for i := range packets {
			h.dispatch(node, packets[i])
		}
	}
}

func (h *Hub) takeWaitingLocked(w *waiting) []packet {
	packets := w.packets
	h.waitingCount -= len(packets)
	h.waitingBytes -= w.bytes
	w.packets, w.bytes = nil, 0
	return packets
}

// arrivedLocked is what waits for a name that has come to this node.
func (h *Hub) arrivedLocked(name string) []packet {
	delete(h.places, name)
	w := h.waiting[name]
	if w == nil {
		return nil
	}
	delete(h.waiting, name)
	return h.takeWaitingLocked(w)
}

// forgetPlace: the name is not on that node, or, with none given, nowhere.
func (h *Hub) forgetPlace(name string, node bus.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if node == "" || h.places[name] == node {
		delete(h.places, name)
	}
}

// dropLocked takes away what is to be dropped, and the name if nothing is left.
func (h *Hub) dropLocked(name string, w *waiting, drop func(*packet) bool) {
	kept := w.packets[:0]
	for i := range w.packets {
		p := w.packets[i]
		if !drop(&p) {
			kept = append(kept, p)
			continue
		}
		size := len(p.data) + frameOverhead
		w.bytes -= size
		h.waitingBytes -= size
		h.waitingCount--
	}
	clear(w.packets[len(kept):])
	w.packets = kept
	if len(w.packets) == 0 && !w.asking {
		delete(h.waiting, name)
	}
}

// tickWaiting gives up what has waited long enough.
func (h *Hub) tickWaiting(now time.Time) {
	var over []packet // one of each pair
	var again []string
	h.mu.Lock()
	for name, w := range h.waiting {
		over = append(over, h.expireLocked(name, w, now)...)
		if h.waiting[name] == w && w.again && !w.asking {
			w.asking, w.again, w.not = true, false, ""
			again = append(again, name)
		}
	}
	h.mu.Unlock()
	for _, name := range again {
		h.background(func(ctx context.Context) { h.find(ctx, name) })
	}
	for i := range over {
		h.refuse(&over[i], reasonGone)
	}
}

// expireLocked gives up the messages of senders whose time is over, and returns one of each of them.
func (h *Hub) expireLocked(name string, w *waiting, now time.Time) (over []packet) {
	var tell map[string]packet // by sender
	for from, until := range w.until {
		if now.Before(until) {
			continue
		}
		delete(w.until, from)
		if tell == nil {
			tell = make(map[string]packet)
		}
		tell[from] = packet{}
	}
	if tell == nil {
		return nil
	}
	h.dropLocked(name, w, func(p *packet) bool {
		first, expired := tell[p.from]
		if expired && (first.kind == 0 || first.reason == reasonQuiet) {
			tell[p.from] = *p
		}
		return expired
	})
	for _, p := range tell {
		if p.kind != 0 {
			over = append(over, p)
		}
	}
	w.again = w.again || !w.asking && len(w.packets) > 0 // the directory tells us for as long as the first asked only
	return over
}

// reasonQuiet marks a message whose loss nobody is told of; between nodes only.
const reasonQuiet = "quiet"
