package relay

import (
	"encoding/binary"
	"time"
	"unicode/utf8"
)

// Error codes of RFC 8489 section 14.8 and RFC 8656 section 19.
const (
	codeBadRequest           = 400
	codeUnauthorized         = 401
	codeForbidden            = 403
	codeUnknownAttribute     = 420
	codeAllocationMismatch   = 437
	codeStaleNonce           = 438
	codeFamilyNotSupported   = 440
	codeWrongCredentials     = 441
	codeTransport            = 442
	codeFamilyMismatch       = 443
	codeAllocationQuota      = 486
	codeServerError          = 500
	codeInsufficientCapacity = 508
)

// maxUsername is what RFC 8489 section 14.3 allows.
const maxUsername = 508

// request is one request in the gate's hands.
type request struct {
	*message
	client *client
	work   *work
	alloc  *allocation // of the client's five-tuple; nil: none

	// Set once the request is known to be its user's.
	username    string
	key         []byte
	owner       Owner
	revocations uint64 // how many there had been before Config.Keys was asked
}

// gate handles one STUN message of a client.
func (s *Server) gate(w *work, c *client, raw []byte) {
	m, err := parse(raw)
	if err != nil {
		s.counters.drop(dropMalformed)
		return
	}
	switch {
	case m.class == classIndication && m.method == methodSend:
		s.sendIndication(w, c, &m)
	case m.class == classIndication && m.method == methodBinding:
		// A keep-alive; nothing is due (RFC 8489 section 6.3.2).
	case m.class != classRequest:
		s.counters.drop(dropUnexpected)
	case m.method == methodBinding:
		s.binding(w, c, &m)
	default:
		s.request(&request{message: &m, client: c, work: w})
	}
}

// request authenticates a TURN request and hands it to its method.
func (s *Server) request(r *request) {
	var handle func(*request)
	switch r.method {
	case methodAllocate:
		handle = s.allocate
	case methodRefresh:
		handle = s.refresh
	case methodCreatePermission:
		handle = s.createPermission
	case methodChannelBind:
		handle = s.channelBind
	default: // RFC 8489 section 6.3: silently discarded
		s.counters.drop(dropUnknownMethod)
		return
	}
	if !s.authenticate(r) {
		return
	}
	if st := r.client.stream; st != nil {
		st.authenticated(r.owner)
	}
	unknown := r.unknown()
	switch {
	case unknown != nil:
		s.refuseUnknown(r, unknown...)
	case r.method != methodAllocate && r.alloc == nil:
		s.refuse(r, codeAllocationMismatch)
	default:
		handle(r)
	}
}

// authenticate decides whether a request is its user's (RFC 8489 section 9.2.4), and answers it if not.
func (s *Server) authenticate(r *request) bool {
	if r.integrity == 0 {
		if s.challenge(r, codeUnauthorized) {
			s.counters.challenges.Add(1)
		}
		return false
	}
	deny := func(why authFailure, code int) bool {
		s.counters.fail(why)
		s.challenge(r, code)
		return false
	}
	username, hasName := r.get(attrUsername)
	realm, hasRealm := r.get(attrRealm)
	nonce, hasNonce := r.get(attrNonce)
	switch {
	case !hasName || !hasRealm || !hasNonce:
		return deny(authIncomplete, codeBadRequest)
	case !s.nonces.valid(nonce, r.client, r.work.now):
		return deny(authNonce, codeStaleNonce)
	case string(realm) != s.cfg.Realm:
		return deny(authRealm, codeUnauthorized)
	case len(username) == 0 || len(username) > maxUsername || !utf8.Valid(username):
		return deny(authUser, codeUnauthorized)
	}
	r.alloc = s.allocationOf(r.client)
	if a := r.alloc; a != nil && a.username == string(username) {
		// What was good when the allocation was made is good as long as it lives.
		if !r.authentic(a.key) {
			return deny(authPassword, codeUnauthorized)
		}
		r.username, r.key, r.owner = a.username, a.key, a.owner
		return true
	}
	r.revocations = s.revocations.Load()
	keys, owner, err := s.cfg.Keys(string(username), s.cfg.Realm, r.method == methodAllocate)
	if err != nil {
		return deny(authUser, codeUnauthorized)
	}
	for _, key := range keys {
		if !r.authentic(key) {
			continue
		}
		r.username, r.key, r.owner = string(username), key, owner
		if r.alloc != nil && r.method != methodAllocate {
			s.counters.fail(authOwner)
			s.refuse(r, codeWrongCredentials)
			return false
		}
		return true
	}
	return deny(authPassword, codeUnauthorized)
}

// challenge answers a request that nobody has vouched for, unless its source prefix has had enough answers. The answer has
// no reason phrase, and FINGERPRINT only where the request had one, so that it is at most three times a bare request.
func (s *Server) challenge(r *request, code int) bool {
	if !s.unauth.allow(r.client.remote.Addr(), r.work.now) {
		s.counters.drop(dropUnauthRate)
		return false
	}
	w := s.begin(r, classError)
	w.errorCode(code)
	if code != codeBadRequest {
		nonce := s.nonces.issue(r.client, r.work.now)
		w.text(attrRealm, s.cfg.Realm)
		w.bytes(attrNonce, nonce[:])
	}
	s.finish(r, &w)
	return true
}

// refuse answers an authenticated request with an error.
func (s *Server) refuse(r *request, code int) {
	w := s.begin(r, classError)
	w.errorCode(code)
	s.finish(r, &w)
}

func (s *Server) refuseUnknown(r *request, list ...attribute) {
	w := s.begin(r, classError)
	w.errorCode(codeUnknownAttribute)
	v := w.space(attrUnknownAttributes, 2*len(list))
	for i, a := range list {
		binary.BigEndian.PutUint16(v[2*i:], uint16(a))
	}
	s.finish(r, &w)
}

// answerSpace is lent to most answers; a longer one moves to memory of its own.
const answerSpace = 256

func (s *Server) begin(r *request, c class) writer {
	return begin(r.work.out.Scratch(answerSpace), r.method, c, r.tx())
}

// finish signs an answer with the user's key, if the user is known, and sends it.
func (s *Server) finish(r *request, w *writer) {
	if r.key != nil {
		w.sign(r.key)
	}
	if r.fingerprint {
		w.fingerprint()
	}
	r.client.send(r.work, w.b)
}

// binding answers a Binding request; it needs no credential and leaves no trace.
func (s *Server) binding(w *work, c *client, m *message) {
	if !s.bindings.allow(c.remote.Addr(), w.now) {
		s.counters.drop(dropUnauthRate)
		return
	}
	r := &request{message: m, client: c, work: w}
	if unknown := m.unknown(); unknown != nil {
		s.refuseUnknown(r, unknown...)
		return
	}
	s.counters.bindings.Add(1)
	answer := s.begin(r, classSuccess)
	answer.xor(attrXORMappedAddress, c.remote)
	s.finish(r, &answer)
}

// lifetimeOf is the desired lifetime of RFC 8656 sections 7.2 and 8.2, zero only if zero is asked for and allowed. ok is
// false for an attribute of the wrong size.
func lifetimeOf(m *message, zero bool) (d time.Duration, ok bool) {
	v, found := m.get(attrLifetime)
	if !found {
		return defaultLifetime, true
	}
	if len(v) != 4 {
		return 0, false
	}
	asked := time.Duration(binary.BigEndian.Uint32(v)) * time.Second
	if asked == 0 && zero {
		return 0, true
	}
	return max(min(asked, maxLifetime), defaultLifetime), true
}

// engineLifetime writes LIFETIME for pion, which does not take a whole hour.
func engineLifetime(d time.Duration) func(*writer) {
	return func(w *writer) { w.number(attrLifetime, uint32(min(d, longestHour)/time.Second)) }
}
