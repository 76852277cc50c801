package signal

import (
	"context"
	"errors"
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

// waiting is what waits for one name, in order of arrival. Owned by Hub.mu.
type waiting struct {
	packets []packet
	bytes   int
	until   map[string]time.Time // by sender: when its messages are given up, all of them together
	asking  bool                 // the directory is being asked, or what waits is being sent on
	again   bool                 // to be asked again
}

// await keeps a message for a name that is not here and of which is not known where it is. Who registers under that name
// in time gets it, on whatever node; else the sender hears of it, once.
func (h *Hub) await(p *packet) {
	if p.node == "" {
		p.node = h.self
	}
	h.mu.Lock()
	if s := h.sessions[p.to]; s != nil {
		h.mu.Unlock()
		h.hand(s, p)
		return
	}
	if f := h.moved[p.to]; f != nil {
		h.mu.Unlock()
		h.dispatch(f.node, *p)
		return
	}
	w := h.waiting[p.to]
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
	if _, known := w.until[p.from]; !known {
		w.until[p.from] = time.Now().Add(waitFor)
	}
	q := *p
	q.data = append([]byte(nil), p.data...)
	w.packets = append(w.packets, q)
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

// find asks the directory who holds a name, and to be told if nobody does.
func (h *Hub) find(ctx context.Context, name string) {
	node, _, err := h.bus.Locate(ctx, name, waitFor)
	if err == nil && node != h.self {
		h.release(name, node)
		return
	}
	h.mu.Lock()
	w := h.waiting[name]
	if w == nil {
		h.mu.Unlock()
		return
	}
	w.asking = false
	// The directory still has an entry of this node for who has just gone, or did not answer.
	w.again = err == nil || !errors.Is(err, bus.ErrNotFound)
	h.mu.Unlock()
}

// release sends on what waits for a name to the node that holds it. What comes meanwhile stays behind it.
func (h *Hub) release(name string, node bus.NodeID) {
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

// tickWaiting gives up what has waited long enough.
func (h *Hub) tickWaiting(now time.Time) {
	var over []packet // one of each pair
	var again []string
	h.mu.Lock()
	for name, w := range h.waiting {
		if w.again && !w.asking {
			w.asking, w.again = true, false
			again = append(again, name)
		}
		for from, until := range w.until {
			if now.Before(until) {
				continue
			}
			delete(w.until, from)
			var tell *packet
			kept := w.packets[:0]
			for i := range w.packets {
				p := w.packets[i]
				if p.from != from {
					kept = append(kept, p)
					continue
				}
				size := len(p.data) + frameOverhead
				w.bytes -= size
				h.waitingBytes -= size
				h.waitingCount--
				if tell == nil || tell.reason == reasonQuiet {
					tell = &p
				}
			}
			clear(w.packets[len(kept):])
			w.packets = kept
			if tell != nil {
				over = append(over, *tell)
			}
		}
		if len(w.packets) == 0 && !w.asking {
			delete(h.waiting, name)
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

// reasonQuiet marks a message whose loss nobody is told of; between nodes only.
const reasonQuiet = "quiet"
