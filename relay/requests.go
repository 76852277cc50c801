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
	if v, found := r.get(attrRequestedAddressFamily); found {
		f, ok := requestedFamily(v)
		switch {
		case !ok:
			s.refuse(r, codeBadRequest)
			return
		case a.relays[f].Load() == nil:
			s.refuse(r, codeFamilyMismatch)
			return
		case lifetime == 0 && a.relays[1-f].Load() != nil:
			// One half of a dual allocation goes; pion keeps the other.
			gone := s.table.removeHalf(a, f)
			if gone == nil {
				s.refuse(r, codeAllocationMismatch)
				return
			}
			gone.close()
			s.refreshed(r, 0)
			return
		}
	}
	answer, err := a.engine.do(a, methodRefresh, r.tx(), engineLifetime(lifetime))
	if err != nil || answer.class != classSuccess {
		// It ended between the gate's look and pion's.
		s.refuse(r, codeAllocationMismatch)
		return
	}
	s.refreshed(r, lifetime)
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
