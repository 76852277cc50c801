package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"callbox/relay/internal/udp"
)

// ask is what an Allocate request asks for.
type ask struct {
	families [2]bool
	even     bool // EVEN-PORT
	reserve  bool // and the port above it, for later
	token    []byte
	lifetime time.Duration
}

// askOf reads an Allocate request (RFC 8656 section 7.2). code is that of the error it deserves; 0: none.
func askOf(m *message) (k ask, code int) {
	transport, found := m.get(attrRequestedTransport)
	if !found || len(transport) != 4 {
		return k, codeBadRequest
	}
	const protocolUDP = 17
	if transport[0] != protocolUDP {
		return k, codeTransport
	}
	requested, hasRequested := m.get(attrRequestedAddressFamily)
	additional, hasAdditional := m.get(attrAdditionalAddressFamily)
	if !hasAdditional {
		additional, hasAdditional = m.get(attrAdditionalAddressFamilyDraft)
	}
	even, hasEven := m.get(attrEvenPort)
	token, hasToken := m.get(attrReservationToken)
	switch {
	case hasRequested && len(requested) != 4, hasAdditional && len(additional) != 4, hasEven && len(even) < 1,
		hasToken && len(token) != tokenSize,
		hasToken && (hasEven || hasRequested || hasAdditional),
		hasRequested && hasAdditional,
		hasAdditional && additional[0] != wireSix:
		return k, codeBadRequest
	}
	k.even = hasEven
	k.reserve = hasEven && even[0]&0x80 != 0
	if k.reserve && hasAdditional {
		return k, codeBadRequest
	}
	k.families[four] = true
	if hasRequested {
		switch requested[0] {
		case wireFour:
		case wireSix:
			k.families = [2]bool{six: true}
		default:
			return k, codeFamilyNotSupported
		}
	}
	if hasAdditional {
		k.families[six] = true
	}
	if hasToken {
		k.token = token
	}
	var ok bool
	if k.lifetime, ok = lifetimeOf(m, false); !ok {
		return k, codeBadRequest
	}
	return k, 0
}

func (s *Server) allocate(r *request) {
	if a := r.alloc; a != nil {
		if a.username == r.username && bytes.Equal(a.tx[:], r.tx()) {
			s.allocated(r, a) // the answer got lost
			return
		}
		s.refuse(r, codeAllocationMismatch)
		return
	}
	if _, df := r.get(attrDontFragment); df && !udp.DontFragment {
		s.refuseUnknown(r, attrDontFragment)
		return
	}
	k, code := askOf(r.message)
	if code != 0 {
		s.refuse(r, code)
		return
	}
	if s.draining.Load() {
		s.counters.refuse(refusedDraining)
		s.refuse(r, codeInsufficientCapacity)
		return
	}
	a, code := s.open(r, k)
	if code != 0 {
		s.refuse(r, code)
		return
	}
	answer, err := a.engine.do(a, methodAllocate, r.tx(), func(w *writer) {
		w.space(attrRequestedTransport, 4)[0] = 17
		engineLifetime(a.granted)(w)
	})
	if err != nil || answer.class != classSuccess || !s.admit(a) {
		s.abandon(a)
		if r.alloc = s.allocationOf(r.client); r.alloc != nil {
			s.allocate(r) // the same five-tuple, or the same request twice, on another shard at the same time
			return
		}
		if !errors.Is(err, ErrClosed) {
			s.cfg.Log.Error("turn engine refused an allocation", keyError, err)
		}
		s.refuse(r, codeServerError)
		return
	}
	if s.revocations.Load() != r.revocations {
		// A revocation may have looked for this allocation after its credential was found good and before it was there.
		if _, _, err := s.cfg.Keys(r.username, s.cfg.Realm, true); err != nil {
			s.finishAllocation(a)
			s.counters.fail(authUser)
			r.key = nil
			s.challenge(r, codeUnauthorized)
			return
		}
	}
	s.allocated(r, a)
}

// open takes quota and relayed addresses for a new allocation. code is that of the error; 0: none.
func (s *Server) open(r *request, k ask) (a *allocation, code int) {
	a = &allocation{
		server: s, client: *r.client, username: r.username, key: slices.Clone(r.key), owner: r.owner, created: r.work.now,
		granted: k.lifetime, ended: make(chan struct{}), tx: [txSize]byte(r.tx()),
	}
	id := s.ids.Add(1)
	a.tuple = tupleOf(id)
	a.engine = s.engines[id%uint64(len(s.engines))]

	if k.token != nil {
		held := s.reservations.claim(k.token, accountName(r))
		if held == nil {
			s.counters.refuse(refusedPorts)
			return nil, codeInsufficientCapacity
		}
		a.account = held.account
		a.relays[familyOf(held.relay.addr.Addr())].Store(held.relay)
		return a, 0
	}

	slots := 1
	if k.reserve {
		slots = 2
	}
	account, err := s.accounts.take(accountName(r), slots, r.work.now)
	switch {
	case errors.Is(err, errOwnerQuota):
		s.counters.refuse(refusedOwner)
		return nil, codeAllocationQuota
	case err != nil:
		s.counters.refuse(refusedTotal)
		return nil, codeInsufficientCapacity
	}
	a.account = account
	if code := s.openRelays(a, k); code != 0 {
		s.table.release(a.relays[four].Load(), a.relays[six].Load())
		s.accounts.give(account, slots, r.work.now)
		if code == codeInsufficientCapacity {
			s.counters.refuse(refusedPorts)
		}
		return nil, code
	}
	return a, 0
}

// openRelays opens what was asked for. Of two families one is enough; what the other lacks is told in the answer.
func (s *Server) openRelays(a *allocation, k ask) (code int) {
	opened := false
	for f, wanted := range k.families {
		if !wanted {
			continue
		}
		relay, above, failed := s.openRelay(family(f), a.client, k, a.created)
		if failed != 0 {
			a.missing[f] = failed
			continue
		}
		opened = true
		a.relays[f].Store(relay)
		if above != nil {
			a.token = s.reservations.add(above, a.account)
		}
	}
	switch {
	case opened:
		return 0
	case k.families == [2]bool{true, true}:
		return codeInsufficientCapacity // whatever each of them lacks (RFC 8656 section 7.2, step 9)
	case k.families[four]:
		return a.missing[four]
	}
	return a.missing[six]
}

// admit makes an allocation that pion has made known to the plane. Its stream knows it first, so that it also learns of an early end.
func (s *Server) admit(a *allocation) bool {
	a.endWhole(a.created.Add(a.granted))
	st := a.client.stream
	if st != nil {
		st.alloc.Store(a)
	}
	if !s.table.add(a) {
		if st != nil {
			st.alloc.Store(nil)
		}
		return false
	}
	s.counters.created.Add(1)
	for f := range a.relays {
		s.serveRelay(a, a.relays[f].Load())
	}
	return true
}

// abandon gives back what an allocation took that never came to be. Its reservation, if it made one, runs out by itself.
func (s *Server) abandon(a *allocation) {
	s.table.release(a.relays[four].Load(), a.relays[six].Load())
	a.Close()
	s.accounts.give(a.account, 1, time.Now())
}

// forget is the end of an admitted allocation, called on pion's behalf.
func (s *Server) forget(a *allocation) {
	if !s.table.remove(a) {
		return
	}
	s.accounts.give(a.account, 1, time.Now())
	if st := a.client.stream; st != nil {
		st.alloc.CompareAndSwap(a, nil)
	}
}

// finishAllocation makes pion end an allocation. It has ended when this returns.
func (s *Server) finishAllocation(a *allocation) {
	// The only error is a closed engine, and with that the allocation is closed too.
	_, _ = a.engine.do(a, methodRefresh, nil, engineLifetime(0))
}

// allocated answers an Allocate request with the allocation it made.
func (s *Server) allocated(r *request, a *allocation) {
	w := s.begin(r, classSuccess)
	for f := range a.relays {
		if relay := a.relays[f].Load(); relay != nil {
			w.xor(attrXORRelayedAddress, relay.addr)
		}
	}
	w.number(attrLifetime, uint32(a.granted/time.Second))
	if a.token != nil {
		w.bytes(attrReservationToken, a.token)
	}
	w.xor(attrXORMappedAddress, r.client.remote)
	for f, code := range a.missing {
		if code != 0 {
			putAddressError(w.space(attrAddressErrorCode, 4), family(f), code)
		}
	}
	s.finish(r, &w)
}

// putAddressError writes ADDRESS-ERROR-CODE (RFC 8656 section 18.12).
func putAddressError(v []byte, f family, code int) {
	binary.BigEndian.PutUint32(v, uint32(f.wire())<<24|uint32(code/100)<<8|uint32(code%100))
}

// accountName is what an owner's quota is counted under.
func accountName(r *request) string {
	if r.owner.User != "" {
		return "user " + r.owner.User
	}
	return "name " + r.username
}
