package relay

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v2"

	"callbox/relay/internal/udp"
)

// The fuzz targets run their corpus, in testdata/fuzz and below, with every `go test`.

func FuzzParse(f *testing.F) {
	for _, text := range []string{sampleRequest, sampleFour, sampleSix, sampleLongTerm} {
		f.Add(vector(f, text))
	}
	f.Add([]byte{})
	f.Add([]byte("\x00\x01\xff\xec\x21\x12\xa4\x42\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := parse(b)
		if err != nil {
			return
		}
		m.each(func(attribute, []byte) bool { return true })
		m.unknown()
		m.authentic([]byte("key"))
		v, _ := m.get(attrXORPeerAddress)
		xorAddress(v, m.tx())
		errorCodeOf(&m)
		lifetimeOf(&m, true)
		askOf(&m)
		if !bytes.Equal(b, before) {
			t.Fatal("parsing changed the message")
		}
		// What this parser takes, another must take too, and see the same type in it.
		other := &stun.Message{Raw: bytes.Clone(b)}
		if err := other.Decode(); err != nil {
			t.Fatalf("%v about % x", err, b)
		}
		if typeOf(m.method, m.class) != binary.BigEndian.Uint16(b)&0x3FFF || other.Type.Value() != typeOf(m.method, m.class) {
			t.Fatalf("type %x is %v and %v", b[:2], m, other)
		}
	})
}

func FuzzFramer(f *testing.F) {
	f.Add(vector(f, sampleRequest), uint8(3))
	f.Add(channelData(0x4000, []byte("hello")), uint8(1))
	f.Add([]byte("\x40\x00\xff\xfc\x00\x00\x00\x00\x00"), uint8(9))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		cut := func(piece int) (frames [][]byte, failed bool) {
			var fr framer
			for rest := stream; len(rest) > 0; {
				space := fr.space()
				if len(space) == 0 || len(fr.buf) > fullBuffer {
					t.Fatalf("%d bytes of space in a buffer of %d", len(space), len(fr.buf))
				}
				n := copy(space, rest[:min(piece, len(rest))])
				fr.filled(n)
				rest = rest[n:]
				for {
					b, err := next(&fr)
					if err != nil {
						return frames, true
					}
					if b == nil {
						break
					}
					if len(b)%4 != 0 {
						t.Fatalf("frame of %d bytes", len(b))
					}
					frames = append(frames, bytes.Clone(b))
				}
			}
			return frames, false
		}
		a, failedA := cut(1 + int(piece))
		b, failedB := cut(len(stream) + 1)
		if failedA != failedB || !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) || len(a) != len(b) {
			t.Fatalf("pieces of %d give %d frames, %v; one piece %d, %v", piece, len(a), failedA, len(b), failedB)
		}
		if all := bytes.Join(a, nil); !bytes.HasPrefix(stream, all) {
			t.Fatal("frames are not what was sent")
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add("10.0.0.0/8", "lan", "10.0.0.1")
	f.Add("::/0", "64:ff9b::/96", "::ffff:127.0.0.1")
	f.Fuzz(func(t *testing.T, allow, deny, addr string) {
		p, err := ParsePolicy([]string{allow}, []string{deny})
		if err != nil {
			p = new(Policy)
		}
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return
		}
		got := p.Allow(netip.AddrPortFrom(a, 1))
		if c := canonical(a); got && (c.IsUnspecified() || c.IsMulticast()) {
			t.Fatalf("%v is reachable", a)
		}
		if got != p.Allow(netip.AddrPortFrom(canonical(a), 1)) {
			t.Fatalf("%v is judged in its disguise", a)
		}
	})
}

// fuzzServer is a sealed relay without a listener: everything goes in through the gate's functions.
func fuzzServer(f *testing.F) *Server {
	f.Helper()
	s, err := Listen(Config{Keys: testKeys, Quota: Quota{UnauthRate: -1, Allocations: 4, Total: 64}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	return s
}

func FuzzGate(f *testing.F) {
	s := fuzzServer(f)
	w := &wire{TB: f, realm: "callbox", nonce: "AAAAAAAAAAAAAAAA"}
	w.as("1:alice")
	for _, m := range []*stun.Message{
		w.bare(stun.MethodBinding), w.bare(stun.MethodAllocate, stun.Fingerprint), w.signed(stun.MethodAllocate, transportUDP),
		w.signed(stun.MethodCreatePermission, peer("8.8.8.8:1")), w.signed(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.8.8:1")),
		w.signed(stun.MethodRefresh, lifetime(0)),
	} {
		f.Add(m.Raw, true)
	}
	f.Add(channelData(0x4000, []byte("hello")), true)
	f.Fuzz(func(t *testing.T, b []byte, resign bool) {
		fuzzGate(t, s, b, resign)
	})
}

// fuzzGate gives the server one message as if from a stream of a client that has an allocation, with a good nonce and
// integrity put in if resign says so.
func fuzzGate(t *testing.T, s *Server, b []byte, resign bool) {
	if len(b) > udp.MaxDatagram {
		return
	}
	st, answers := pipeStream(t, s)
	w := &work{now: time.Now()}
	give := func(b []byte) [][]byte {
		b = append(bytes.Clone(b), 0, 0, 0)
		b = b[:len(b)-3]
		if looksLikeSTUN(b) {
			s.gate(w, &st.client, b)
		} else if a := st.alloc.Load(); a != nil && isChannelData(b) {
			s.fromClient(w, a, b)
		}
		w.out.Flush()
		return answers()
	}
	nonce := s.nonces.issue(&st.client, w.now)
	user := &wire{TB: t, realm: "callbox", nonce: string(nonce[:])}
	user.as("1:alice")
	give(user.signed(stun.MethodAllocate, transportUDP).Raw)
	if a := st.alloc.Load(); a != nil {
		defer s.finishAllocation(a)
	} else {
		t.Fatal("no allocation")
	}
	if m, err := parse(b); resign && err == nil {
		wr := writer{b: append([]byte(nil), b[:stunHeader]...)}
		wr.b[2], wr.b[3] = 0, 0
		m.each(func(a attribute, v []byte) bool {
			if a != attrNonce && a != attrUsername && a != attrRealm {
				wr.bytes(a, v)
			}
			return len(wr.b) < 30000
		})
		wr.text(attrUsername, user.username)
		wr.text(attrRealm, user.realm)
		wr.text(attrNonce, user.nonce)
		wr.sign(user.key())
		b = wr.b
	}
	for _, answer := range give(b) {
		m, err := parse(answer)
		if err != nil || m.class != classSuccess && m.class != classError {
			t.Fatalf("answer % x to % x: %v", answer, b, err)
		}
		if request, err := parse(b); err != nil || request.class != classRequest || !bytes.Equal(request.tx(), m.tx()) {
			t.Fatalf("answer % x to % x", answer, b)
		}
	}
}

// mailbox is the outlet of a stream that has no connection.
type mailbox struct{ queued []byte }

func (m *mailbox) Queue(b []byte, most int) bool {
	m.queued = append(m.queued, b...)
	return len(m.queued) <= most
}

func (m *mailbox) Flush()    {}
func (m *mailbox) Shutdown() {}
func (m *mailbox) Close()    {}

// pipeStream is a stream that nobody reads or writes; what is queued for its client is taken by the function returned.
func pipeStream(t testing.TB, s *Server) (*stream, func() [][]byte) {
	box := &mailbox{}
	st := &stream{server: s, out: box}
	st.client = client{transport: TCP, remote: netip.MustParseAddrPort("192.0.2.1:1"), local: netip.MustParseAddrPort("127.0.0.1:1"), stream: st}
	return st, func() [][]byte {
		b := box.queued
		box.queued = nil
		var list [][]byte
		for {
			frame, rest, err := cut(b)
			if err != nil {
				t.Fatal(err)
			}
			if frame == nil {
				return list
			}
			list = append(list, frame)
			b = rest
		}
	}
}

// FuzzUsername gives the gate, and through it Config.Keys, user names of strangers.
func FuzzUsername(f *testing.F) {
	s := fuzzServer(f)
	for _, name := range []string{"1:alice", "", ":", "\xff", strings.Repeat("x", 600), "a\x00b", "1:nobody"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if len(name) > 2000 {
			return
		}
		st, answers := pipeStream(t, s)
		w := &work{now: time.Now()}
		nonce := s.nonces.issue(&st.client, w.now)
		b := begin(nil, methodRefresh, classRequest, make([]byte, txSize))
		b.text(attrUsername, name)
		b.text(attrRealm, "callbox")
		b.bytes(attrNonce, nonce[:])
		b.sign(keyFor(name, "callbox", password(name)))
		s.gate(w, &st.client, b.b)
		list := answers()
		if len(list) != 1 {
			t.Fatalf("%d answers", len(list))
		}
		m, err := parse(list[0])
		if err != nil {
			t.Fatal(err)
		}
		if code := errorCodeOf(&m); code != codeUnauthorized && code != codeAllocationMismatch {
			t.Fatalf("%q got %d", name, code)
		}
	})
}

// mutate changes a few things about a message, as line noise or a fuzzer would.
func mutate(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + rand.IntN(4) {
		if len(b) == 0 {
			return random(rand.IntN(64))
		}
		i := rand.IntN(len(b))
		switch rand.IntN(5) {
		case 0:
			b[i] ^= 1 << rand.IntN(8)
		case 1:
			b[i] = byte(rand.Uint32())
		case 2:
			b = b[:i]
		case 3:
			b = append(b[:i], append(random(rand.IntN(9)), b[i:]...)...)
		case 4:
			if i+2 <= len(b) {
				binary.BigEndian.PutUint16(b[i:], uint16(rand.Uint32()))
			}
		}
	}
	return b
}

func TestGateTakesMutatedMessages(t *testing.T) {
	s, err := Listen(Config{Keys: testKeys, Quota: Quota{UnauthRate: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := &wire{TB: t, realm: "callbox", nonce: "AAAAAAAAAAAAAAAA"}
	w.as("1:alice")
	seeds := [][]byte{
		w.signed(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80), lifetime(700)).Raw,
		w.signed(stun.MethodCreatePermission, peer("8.8.8.8:1"), peer("[2600::1]:1")).Raw,
		w.signed(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.8.8:1")).Raw,
		w.signed(stun.MethodRefresh, lifetime(0), asksSix).Raw,
		channelData(0x4000, random(32)),
	}
	for i := range 2000 {
		fuzzGate(t, s, mutate(seeds[i%len(seeds)]), i%2 == 0)
	}
}
