package relay

import (
	"net/netip"
	"sync"
)

// streams are the connections being served, counted by address.
type streams struct {
	perAddress int

	mu      sync.Mutex
	closed  bool
	open    map[*stream]struct{}
	sources map[netip.Prefix]int
}

func newStreams(perAddress int) *streams {
	return &streams{perAddress: perAddress, open: make(map[*stream]struct{}), sources: make(map[netip.Prefix]int)}
}

// sourceHost is whose connections are counted together: an IPv4 address, or an IPv6 /64.
func sourceHost(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap().WithZone(""); a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// add admits a stream. start runs under the lock, so that it is over before a close can see the stream.
func (s *streams) add(st *stream, start func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := sourceHost(st.client.remote.Addr())
	if s.closed || s.perAddress > 0 && s.sources[h] >= s.perAddress {
		return false
	}
	s.sources[h]++
	s.open[st] = struct{}{}
	start()
	return true
}

func (s *streams) remove(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, st)
	h := sourceHost(st.client.remote.Addr())
	if s.sources[h]--; s.sources[h] == 0 {
		delete(s.sources, h)
	}
}

// closeOwned closes the streams of matching owners.
func (s *streams) closeOwned(match func(Owner) bool) {
	for _, st := range s.list() {
		if owner := st.owner.Load(); owner != nil && match(*owner) {
			st.out.Shutdown()
		}
	}
}

// close closes all streams and admits no more.
func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, st := range s.list() {
		st.out.Shutdown()
	}
}

func (s *streams) list() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*stream, 0, len(s.open))
	for st := range s.open {
		out = append(out, st)
	}
	return out
}
