package relay

import (
	"net/netip"
	"sync"
)

// flow is a client's half of a UDP five-tuple, with the address of ours it uses.
type flow struct {
	remote netip.AddrPort
	local  netip.AddrPort
}

// table knows every allocation by what packets call it.
type table struct {
	mu      sync.RWMutex                   // taken before allocation.mu
	flows   map[flow]*allocation           // UDP clients
	relayed map[netip.AddrPort]*allocation // by relayed address; nil while a port is only held
	hosts   map[netip.Addr]*hostPorts      // which ports of each of our addresses are relayed addresses
	all     map[*allocation]struct{}
}

func newTable() *table {
	return &table{
		flows:   make(map[flow]*allocation),
		relayed: make(map[netip.AddrPort]*allocation),
		hosts:   make(map[netip.Addr]*hostPorts),
		all:     make(map[*allocation]struct{}),
	}
}

func (t *table) byFlow(f flow) *allocation {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.flows[f]
}

// byRelayed finds the allocation behind a relayed address.
func (t *table) byRelayed(a netip.AddrPort) *allocation {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.relayed[a]
}

// relaysAt says whether an address is that of a relay of ours.
func (t *table) relaysAt(a netip.Addr) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.hosts[a] != nil
}

// hold takes a relayed address for somebody who is about to use it. It reports false where it is taken.
func (t *table) hold(a netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holdOne(a)
}

// holdOne is hold; the caller holds mu.
func (t *table) holdOne(a netip.AddrPort) bool {
	if _, taken := t.relayed[a]; taken {
		return false
	}
	h := t.hosts[a.Addr()]
	if h == nil {
		h = &hostPorts{}
		t.hosts[a.Addr()] = h
	}
	h.set(a.Port())
	t.relayed[a] = nil
	return true
}

// holdFree takes the first free port of a range, searched from a port on and round to it; pair takes the one above it too.
// What it takes of time does not grow with the number of ports that are held.
func (t *table) holdFree(host netip.Addr, ports PortRange, from uint16, even, pair bool) (uint16, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hosts[host]
	if h == nil {
		h = &hostPorts{}
	}
	port, ok := h.free(ports, from, even, pair)
	if !ok {
		return 0, false
	}
	t.holdOne(netip.AddrPortFrom(host, port))
	if pair {
		t.holdOne(netip.AddrPortFrom(host, port+1))
	}
	return port, true
}

// release gives relayed addresses back.
func (t *table) release(list ...*relayed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range list {
		t.releaseOne(r)
	}
}

// releaseOne is release of one address; the caller holds mu.
func (t *table) releaseOne(r *relayed) {
	if r == nil {
		return
	}
	if _, held := t.relayed[r.addr]; !held {
		return
	}
	delete(t.relayed, r.addr)
	if h := t.hosts[r.addr.Addr()]; h.clear(r.addr.Port()) {
		delete(t.hosts, r.addr.Addr())
	}
}

// add makes an allocation known, unless it has ended meanwhile or its five-tuple has another. Its relayed addresses were held before.
func (t *table) add(a *allocation) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.dead.Load() {
		return false
	}
	if a.client.stream == nil {
		if t.flows[a.client.flow()] != nil {
			return false
		}
		t.flows[a.client.flow()] = a
	}
	for f := range a.relays {
		if r := a.relays[f].Load(); r != nil {
			t.relayed[r.addr] = a
		}
	}
	t.all[a] = struct{}{}
	return true
}

// remove reports whether the allocation was known. It is marked dead before.
func (t *table) remove(a *allocation) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.all[a]; !ok {
		return false
	}
	delete(t.all, a)
	if a.client.stream == nil {
		delete(t.flows, a.client.flow())
	}
	for f := range a.relays {
		t.releaseOne(a.relays[f].Load())
	}
	return true
}

// removeHalf takes one of a dual allocation's relayed addresses from it; nil: the allocation has ended, and its addresses may be
// another's by now.
func (t *table) removeHalf(a *allocation, f family) *relayed {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.all[a]; !ok {
		return nil
	}
	r := a.relays[f].Swap(nil)
	t.releaseOne(r)
	return r
}

// list returns the allocations of the moment.
func (t *table) list() []*allocation {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*allocation, 0, len(t.all))
	for a := range t.all {
		out = append(out, a)
	}
	return out
}
