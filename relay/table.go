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
	hosts   map[netip.Addr]int             // how many relayed addresses each of our addresses has
	all     map[*allocation]struct{}
}

func newTable() *table {
	return &table{
		flows:   make(map[flow]*allocation),
		relayed: make(map[netip.AddrPort]*allocation),
		hosts:   make(map[netip.Addr]int),
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
	return t.hosts[a] > 0
}

// hold takes a relayed address for somebody who is about to use it. It reports false where it is taken.
func (t *table) hold(a netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.relayed[a]; taken {
		return false
	}
	t.relayed[a] = nil
	t.hosts[a.Addr()]++
	return true
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
	if t.hosts[r.addr.Addr()]--; t.hosts[r.addr.Addr()] == 0 {
		delete(t.hosts, r.addr.Addr())
	}
}

// add makes an allocation known, unless it has ended meanwhile. Its relayed addresses were held before.
func (t *table) add(a *allocation) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.dead.Load() {
		return false
	}
	if a.client.stream == nil {
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
