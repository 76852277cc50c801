package relay

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

// wire is a client that builds and reads its messages with pion/stun, so that the relay's own reading and writing is checked
// by another's.
type wire struct {
	testing.TB
	conn     net.Conn
	tcp      bool
	username string
	password string
	realm    string
	nonce    string

	stale map[[stun.TransactionIDSize]byte]bool // requests sent more than once: they may be answered more than once
}

const (
	answerTimeout = 20 * time.Second
	// repeatAfter is when a request over UDP is sent again: a busy machine loses datagrams even on loopback.
	repeatAfter = time.Second
)

// dial connects a client of user alice over the network, "udp" or "tcp".
func dial(t testing.TB, s *testServer, network string) *wire {
	t.Helper()
	addr := s.tcp.Addr().String()
	if network == "udp" {
		addr = s.Addr().String()
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w := &wire{TB: t, conn: c, tcp: network == "tcp"}
	w.as("1:alice")
	return w
}

// as makes the client another user.
func (w *wire) as(username string) *wire {
	w.username, w.password = username, password(username)
	return w
}

// both runs a test over UDP and over TCP, on each plane that the system has, always against a server of its own.
func both(t *testing.T, change func(*Config), f func(t *testing.T, s *testServer, network string)) {
	t.Helper()
	planes(t, change, func(t *testing.T, change func(*Config)) {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(network, func(t *testing.T) { f(t, newServer(t, change), network) })
		}
	})
}

// planes runs a test on each plane that the system has.
func planes(t *testing.T, change func(*Config), f func(t *testing.T, change func(*Config))) {
	t.Helper()
	for _, portable := range []bool{false, true} {
		if portable && !onLinux {
			return // there is no other
		}
		name := "auto"
		if portable {
			name = "portable"
		}
		t.Run(name, func(t *testing.T) {
			f(t, func(c *Config) {
				if change != nil {
					change(c)
				}
				c.Portable = portable
			})
		})
	}
}

func (w *wire) send(b []byte) {
	w.Helper()
	if _, err := w.conn.Write(b); err != nil {
		w.Fatal(err)
	}
}

// receive reads one message, STUN or ChannelData, and passes over second answers.
func (w *wire) receive() []byte {
	w.Helper()
	for {
		b, err := w.tryReceive(answerTimeout)
		if err != nil {
			w.Fatalf("no answer: %v", err)
		}
		if len(b) < stunHeader || !w.stale[[stun.TransactionIDSize]byte(b[8:stunHeader])] {
			return b
		}
	}
}

func (w *wire) tryReceive(wait time.Duration) ([]byte, error) {
	w.conn.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 65536)
	if !w.tcp {
		n, err := w.conn.Read(b)
		return b[:n], err
	}
	if _, err := io.ReadFull(w.conn, b[:4]); err != nil {
		return nil, err
	}
	size := 4 + (int(binary.BigEndian.Uint16(b[2:]))+3)&^3
	if b[0]&0xC0 == 0 {
		size = 20 + int(binary.BigEndian.Uint16(b[2:]))
	}
	_, err := io.ReadFull(w.conn, b[4:size])
	return b[:size], err
}

// closed waits until the server has closed the connection.
func (w *wire) closed() {
	w.Helper()
	for {
		if _, err := w.tryReceive(answerTimeout); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				w.Fatal("the connection is still open")
			}
			return
		}
	}
}

// message reads a STUN message.
func (w *wire) message() *stun.Message {
	w.Helper()
	return w.decode(w.receive())
}

// decode reads a message and checks what every answer must keep to.
func (w *wire) decode(raw []byte) *stun.Message {
	w.Helper()
	m := &stun.Message{Raw: raw}
	if err := m.Decode(); err != nil {
		w.Fatalf("%v in % x", err, raw)
	}
	for i, a := range m.Attributes {
		if a.Type == stun.AttrFingerprint {
			if i != len(m.Attributes)-1 {
				w.Fatalf("FINGERPRINT is not last: %v", m)
			}
			if err := stun.Fingerprint.Check(m); err != nil {
				w.Fatal(err)
			}
		}
		if a.Type == stun.AttrSoftware {
			w.Fatalf("SOFTWARE in %v", m)
		}
	}
	return m
}

// bare is a request without credentials.
func (w *wire) bare(method stun.Method, attrs ...stun.Setter) *stun.Message {
	w.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)...)
	if err != nil {
		w.Fatal(err)
	}
	return m
}

// signed is a request with the client's credentials.
func (w *wire) signed(method stun.Method, attrs ...stun.Setter) *stun.Message {
	w.Helper()
	if w.nonce == "" {
		w.learn()
	}
	return w.bare(method, append(attrs, stun.NewUsername(w.username), stun.NewRealm(w.realm), stun.NewNonce(w.nonce), w.key())...)
}

func (w *wire) key() stun.MessageIntegrity {
	return stun.MessageIntegrity(keyFor(w.username, w.realm, w.password))
}

// learn draws realm and nonce from the server.
func (w *wire) learn() {
	w.Helper()
	m := w.ask(w.bare(stun.MethodAllocate))
	w.code(m, 401)
	w.realm, w.nonce = w.text(m, stun.AttrRealm), w.text(m, stun.AttrNonce)
}

// ask sends a request and returns its answer, which must be the next message.
func (w *wire) ask(m *stun.Message) *stun.Message {
	w.Helper()
	return w.await(m, func(other []byte) { w.Fatalf("% x is no answer to %v", other, m) })
}

// await sends a request, over UDP as often as it takes, and returns its answer. What comes before it goes to other.
func (w *wire) await(m *stun.Message, other func([]byte)) *stun.Message {
	w.Helper()
	wait, start := answerTimeout, time.Now()
	if !w.tcp {
		wait = repeatAfter
	}
	for w.send(m.Raw); ; {
		b, err := w.tryReceive(wait)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout() && time.Since(start) < answerTimeout:
			if w.stale == nil {
				w.stale = make(map[[stun.TransactionIDSize]byte]bool)
			}
			w.stale[m.TransactionID] = true
			w.send(m.Raw)
		case err != nil:
			w.Fatalf("no answer to %v: %v", m, err)
		case len(b) >= stunHeader && looksLikeSTUN(b) && [stun.TransactionIDSize]byte(b[8:stunHeader]) == m.TransactionID:
			return w.decode(b)
		case len(b) < stunHeader || !w.stale[[stun.TransactionIDSize]byte(b[8:stunHeader])]:
			other(b)
		}
	}
}

// do sends a signed request and returns its answer, which must be signed too unless it is about the credentials.
func (w *wire) do(method stun.Method, attrs ...stun.Setter) *stun.Message {
	w.Helper()
	m := w.ask(w.signed(method, attrs...))
	if c := errorCode(m); c != 400 && c != 401 && c != 438 {
		if err := w.key().Check(m); err != nil {
			w.Fatalf("answer %v: %v", m, err)
		}
	}
	return m
}

// succeed is do with an answer that must be a success.
func (w *wire) succeed(method stun.Method, attrs ...stun.Setter) *stun.Message {
	w.Helper()
	m := w.do(method, attrs...)
	if m.Type.Class != stun.ClassSuccessResponse {
		w.Fatalf("%v answered %v", method, errorCode(m))
	}
	return m
}

// allocate makes an allocation and returns its first relayed address.
func (w *wire) allocate(attrs ...stun.Setter) netip.AddrPort {
	w.Helper()
	m := w.succeed(stun.MethodAllocate, append([]stun.Setter{transportUDP}, attrs...)...)
	return w.address(m, stun.AttrXORRelayedAddress)
}

// code asserts an error answer.
func (w *wire) code(m *stun.Message, want int) {
	w.Helper()
	if m.Type.Class != stun.ClassErrorResponse || errorCode(m) != want {
		w.Fatalf("answer %v, error code %d; want %d", m, errorCode(m), want)
	}
}

// silent sends something that must not be answered, and a Binding request behind it to see that it was not.
func (w *wire) silent(b []byte) {
	w.Helper()
	w.send(b)
	w.alive()
}

// alive sees that the server answers this client.
func (w *wire) alive() {
	w.Helper()
	if m := w.ask(w.bare(stun.MethodBinding)); m.Type != stun.BindingSuccess {
		w.Fatalf("Binding answered %v", m)
	}
}

func (w *wire) text(m *stun.Message, a stun.AttrType) string {
	w.Helper()
	v, err := m.Get(a)
	if err != nil {
		w.Fatalf("%v: %v in %v", err, a, m)
	}
	return string(v)
}

// address reads an XOR address; the zero one if there is none.
func (w *wire) address(m *stun.Message, a stun.AttrType) netip.AddrPort {
	w.Helper()
	var x stun.XORMappedAddress
	if err := x.GetFromAs(m, a); err != nil {
		w.Fatalf("%v: %v in %v", err, a, m)
	}
	ip, _ := netip.AddrFromSlice(x.IP)
	return netip.AddrPortFrom(ip.Unmap(), uint16(x.Port))
}

func errorCode(m *stun.Message) int {
	var c stun.ErrorCodeAttribute
	if c.GetFrom(m) != nil {
		return 0
	}
	return int(c.Code)
}

// attr is an attribute by its bytes.
func attr(t stun.AttrType, v ...byte) stun.Setter { return stun.RawAttribute{Type: t, Value: v} }

// transportUDP is the REQUESTED-TRANSPORT of every right Allocate request.
var transportUDP = attr(stun.AttrRequestedTransport, 17, 0, 0, 0)

func lifetime(seconds uint32) stun.Setter {
	return attr(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, seconds)...)
}

// xorPeer is an XOR-PEER-ADDRESS.
type xorPeer netip.AddrPort

func (p xorPeer) AddTo(m *stun.Message) error {
	a := netip.AddrPort(p)
	return stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

func peer(s string) stun.Setter { return xorPeer(netip.MustParseAddrPort(s)) }

func channelNumber(n uint16) stun.Setter {
	return attr(stun.AttrChannelNumber, byte(n>>8), byte(n), 0, 0)
}

// sendTo is a Send indication.
func (w *wire) sendTo(to netip.AddrPort, data []byte, attrs ...stun.Setter) {
	w.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication),
		xorPeer(to), attr(stun.AttrData, data...)}, attrs...)...)
	if err != nil {
		w.Fatal(err)
	}
	w.send(m.Raw)
}

// channelData is a ChannelData message with its padding.
func channelData(number uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, number)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, (4-len(data)%4)%4)...)
}

// data reads a Data indication.
func (w *wire) data() (netip.AddrPort, []byte) {
	w.Helper()
	m := w.message()
	if m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) {
		w.Fatalf("%v instead of a Data indication", m)
	}
	return w.address(m, stun.AttrXORPeerAddress), []byte(w.text(m, stun.AttrData))
}

// onChannel reads a ChannelData message.
func (w *wire) onChannel(number uint16) []byte {
	w.Helper()
	b := w.receive()
	if got := binary.BigEndian.Uint16(b); got != number {
		w.Fatalf("message % x… instead of channel %#x", b[:4], number)
	}
	size := int(binary.BigEndian.Uint16(b[2:]))
	if !bytes.Equal(b[4+size:], make([]byte, len(b)-4-size)) {
		w.Fatalf("padding % x", b[4+size:])
	}
	return b[4 : 4+size]
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
