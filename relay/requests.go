package relay

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Requests on an allocation that exists; r.alloc is the client's own here.

func (s *Server) refresh(r *request) {
	a := r.alloc
	lifetime, ok := lifetimeOf(r.message, true)
	if !ok {
		s.refuse(r, codeBadRequest)
		return
	}
	if lifetime == 0 {
		r.work.out.Flush() // what the client sent before this leaves while it has a socket to leave from
	}
	if v, found := r.get(attrRequestedAddressFamily); found {
		f, ok := requestedFamily(v)
		switch {
		case !ok:
			s.refuse(r, codeBadRequest)
			return
		case a.relays[f].Load() == nil:
			s.refuse(r, codeFamilyMismatch)
			return
		case a.relays[1-f].Load() != nil:
			s.refreshHalf(r, f, lifetime)
			return
		}
	}
	if s.prolong(r, lifetime) {
		a.endWhole(r.work.now.Add(lifetime))
		s.refreshed(r, lifetime)
	}
}

// refreshHalf refreshes or ends one half of a dual allocation; pion keeps what is left until the later end.
func (s *Server) refreshHalf(r *request, f family, lifetime time.Duration) {
	a := r.alloc
	until := a.endOf(1 - f)
	if lifetime > 0 {
		until = a.endHalf(f, r.work.now.Add(lifetime))
	} else {
		gone := s.table.removeHalf(a, f)
		if gone == nil {
			s.refuse(r, codeAllocationMismatch)
			return
		}
		gone.close()
	}
	left := max(until.Sub(r.work.now), time.Second)
	if s.prolong(r, left+time.Second-1) { // pion counts in whole seconds, and must not end it early
		s.refreshed(r, lifetime)
	}
}

// prolong asks pion for a lifetime, and answers the request if pion knows the allocation no more: it ended between the gate's look and
// pion's.
func (s *Server) prolong(r *request, lifetime time.Duration) bool {
	answer, err := r.alloc.engine.do(r.alloc, methodRefresh, r.tx(), engineLifetime(lifetime))
	if err != nil || answer.class != classSuccess {
		s.refuse(r, codeAllocationMismatch)
		return false
	}
	return true
}

func (s *Server) refreshed(r *request, lifetime time.Duration) {
	w := s.begin(r, classSuccess)
	w.number(attrLifetime, uint32(lifetime/time.Second))
	s.finish(r, &w)
}

func requestedFamily(v []byte) (family, bool) {
	if len(v) != 4 || v[0] != wireFour && v[0] != wireSix {
		return 0, false
	}
	return family(v[0] - wireFour), true
}

func (s *Server) createPermission(r *request) {
	var peers []netip.AddrPort
	code := 0
	r.each(func(t attribute, v []byte) bool {
		if t != attrXORPeerAddress {
			return true
		}
		peer, ok := xorAddress(v, r.tx())
		peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
		switch {
		case !ok:
			code = codeBadRequest
		case r.alloc.relays[familyOf(peer.Addr())].Load() == nil:
			code = codeFamilyMismatch
		case !s.mayPermit(peer):
			code = codeForbidden
		}
		peers = append(peers, peer)
		return code == 0
	})
	if code == 0 && len(peers) == 0 {
		code = codeBadRequest
	}
	if code == 0 && !r.alloc.room(peers, s.cfg.Quota.Permissions, r.work.now) {
		s.counters.refuse(refusedPermissions)
		code = codeInsufficientCapacity
	}
	if code != 0 {
		s.refuse(r, code)
		return
	}
	if !s.confirm(r, func(w *writer) {
		for _, p := range peers {
			w.xor(attrXORPeerAddress, p)
		}
	}) {
		return
	}
	r.alloc.permit(peers, r.work.now)
	w := s.begin(r, classSuccess)
	s.finish(r, &w)
}

// Channels that may be bound (RFC 8656 section 12).
const (
	minChannel = 0x4000
	maxChannel = 0x4FFF
)

func (s *Server) channelBind(r *request) {
	a := r.alloc
	v, found := r.get(attrChannelNumber)
	address, hasPeer := r.get(attrXORPeerAddress)
	peer, ok := xorAddress(address, r.tx())
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	if !found || len(v) != 4 || !hasPeer || !ok || peer.Port() == 0 {
		s.refuse(r, codeBadRequest)
		return
	}
	number := binary.BigEndian.Uint16(v)
	direct := s.mayLeave(peer)
	switch {
	case number < minChannel || number > maxChannel:
		s.refuse(r, codeBadRequest)
	case a.relays[familyOf(peer.Addr())].Load() == nil:
		s.refuse(r, codeFamilyMismatch)
	case (!direct || s.cfg.Ports.sealed()) && s.table.byRelayed(peer) == nil:
		s.refuse(r, codeForbidden)
	case !a.room([]netip.AddrPort{peer}, s.cfg.Quota.Permissions, r.work.now):
		s.counters.refuse(refusedPermissions)
		s.refuse(r, codeInsufficientCapacity)
	case !a.roomForChannel(number, s.cfg.Quota.Permissions, r.work.now):
		s.counters.refuse(refusedChannels)
		s.refuse(r, codeInsufficientCapacity)
	default:
		if !s.confirm(r, func(w *writer) {
			binary.BigEndian.PutUint16(w.space(attrChannelNumber, 4), number)
			w.xor(attrXORPeerAddress, peer)
		}) {
			return
		}
		a.bind(number, peer, direct, r.work.now)
		w := s.begin(r, classSuccess)
		s.finish(r, &w)
	}
}

// confirm asks pion, and passes its refusal on.
func (s *Server) confirm(r *request, attrs func(*writer)) bool {
	answer, err := r.alloc.engine.do(r.alloc, r.method, r.tx(), attrs)
	switch {
	case err != nil:
		s.refuse(r, codeAllocationMismatch) // it ended between the gate's look and pion's
	case answer.class != classSuccess:
		s.refuse(r, errorCodeOf(&answer))
	default:
		return true
	}
	return false
}
