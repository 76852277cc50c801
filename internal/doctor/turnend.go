package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"callbox/internal/stunaddr"

	"github.com/pion/stun/v2"
)

// turnEnd is one allocation (RFC 8656) as a client sees it. It has no goroutine: whoever asks also reads.
type turnEnd struct {
	conn    net.Conn
	stream  *bufio.Reader // nil: datagrams
	stop    func() bool   // ends the watch on the context
	auth    []stun.Setter // user name, realm, nonce and integrity, once known
	cred    Credential
	relayed netip.AddrPort
	data    [][]byte // came while something else was waited for
}

// refusal is an error response.
type refusal struct {
	code   stun.ErrorCode
	reason string
}

func (r *refusal) Error() string { return fmt.Sprintf("refused: %d %s", r.code, r.reason) }

// requestedUDP is a REQUESTED-TRANSPORT of UDP (RFC 8656 section 18.8).
var requestedUDP = stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}}

// allocate connects and makes an allocation.
func allocate(ctx context.Context, network string, at netip.AddrPort, c Credential) (*turnEnd, error) {
	conn, err := dialTURN(ctx, network, at)
	if err != nil {
		if ctx.Err() != nil {
			return nil, errSilent
		}
		return nil, cause(err)
	}
	e := &turnEnd{conn: conn, cred: c}
	if network != "udp" {
		e.stream = bufio.NewReader(conn)
	}
	e.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	answer, err := e.authenticated(stun.NewType(stun.MethodAllocate, stun.ClassRequest), requestedUDP)
	if err != nil {
		e.close()
		return nil, err
	}
	if e.relayed, err = stunaddr.XOR(answer, stun.AttrXORRelayedAddress); err != nil {
		e.close()
		return nil, fmt.Errorf("TURN answer: %w", err)
	}
	return e, nil
}

// dialTURN opens the way to the server. Its certificate is judged by a check of its own.
func dialTURN(ctx context.Context, network string, at netip.AddrPort) (net.Conn, error) {
	if network == "tls" {
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"stun.turn"}}}
		return d.DialContext(ctx, "tcp", at.String())
	}
	var d net.Dialer
	return d.DialContext(ctx, network, at.String())
}

// close gives the allocation back and hangs up.
func (e *turnEnd) close() {
	e.stop()
	if e.relayed.IsValid() {
		// Nobody waits for the answer: a lifetime of 0 that is lost ends with the allocation's own.
		attributes := append([]stun.Setter{
			stun.TransactionID, stun.NewType(stun.MethodRefresh, stun.ClassRequest),
			stun.RawAttribute{Type: stun.AttrLifetime, Value: []byte{0, 0, 0, 0}},
		}, e.auth...)
		if m, err := stun.Build(attributes...); err == nil {
			_ = e.conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = e.conn.Write(m.Raw)
		}
	}
	_ = e.conn.Close()
}

// permit lets a peer's packets in.
func (e *turnEnd) permit(peer netip.AddrPort) error {
	_, err := e.authenticated(stun.NewType(stun.MethodCreatePermission, stun.ClassRequest), peerAttr(peer))
	return err
}

// send wraps data for a peer.
func (e *turnEnd) send(peer netip.AddrPort, data []byte) error {
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication),
		peerAttr(peer), stun.RawAttribute{Type: stun.AttrData, Value: data})
	if err != nil {
		return fmt.Errorf("TURN send: %w", err)
	}
	_, err = e.conn.Write(m.Raw)
	return e.failed(err)
}

// receive waits for data of a peer.
func (e *turnEnd) receive(deadline time.Time) ([]byte, error) {
	for len(e.data) == 0 {
		if _, err := e.read(deadline); err != nil {
			return nil, err
		}
	}
	first := e.data[0]
	e.data = e.data[1:]
	return first, nil
}

// peerAttr is an XOR-PEER-ADDRESS.
type peerAttr netip.AddrPort

func (p peerAttr) AddTo(m *stun.Message) error {
	peer := netip.AddrPort(p)
	return stun.XORMappedAddress{IP: peer.Addr().AsSlice(), Port: int(peer.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

// authenticated asks with the credential, after the server has told its realm and nonce (RFC 8489 section 9.2).
func (e *turnEnd) authenticated(kind stun.MessageType, attributes ...stun.Setter) (*stun.Message, error) {
	for attempt := 0; ; attempt++ {
		all := append([]stun.Setter{stun.TransactionID, kind}, attributes...)
		m, err := stun.Build(append(all, e.auth...)...)
		if err != nil {
			return nil, fmt.Errorf("TURN request: %w", err)
		}
		answer, err := e.ask(m)
		if err != nil {
			return nil, err
		}
		if answer.Type.Class == stun.ClassSuccessResponse {
			return answer, nil
		}
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(answer); err != nil {
			return nil, fmt.Errorf("TURN answer: %w", err)
		}
		first := code.Code == stun.CodeUnauthorized && len(e.auth) == 0
		if attempt >= 2 || !first && code.Code != stun.CodeStaleNonce {
			return nil, &refusal{code.Code, string(code.Reason)}
		}
		var realm stun.Realm
		var nonce stun.Nonce
		if err := errors.Join(realm.GetFrom(answer), nonce.GetFrom(answer)); err != nil {
			return nil, fmt.Errorf("TURN answer: %w", err)
		}
		e.auth = []stun.Setter{
			stun.NewUsername(e.cred.Username), realm, nonce,
			stun.NewLongTermIntegrity(e.cred.Username, realm.String(), e.cred.Password),
		}
	}
}

// ask sends a request, again where it may have been lost, and waits for the answer.
func (e *turnEnd) ask(request *stun.Message) (*stun.Message, error) {
	waits := tries[:]
	if e.stream != nil {
		waits = []time.Duration{tripTime}
	}
	for _, wait := range waits {
		if _, err := e.conn.Write(request.Raw); err != nil {
			return nil, e.failed(err)
		}
		deadline := time.Now().Add(wait)
		for {
			answer, err := e.read(deadline)
			if errors.Is(err, errSilent) {
				break
			}
			if err != nil {
				return nil, err
			}
			if answer.TransactionID == request.TransactionID && answer.Type.Method == request.Type.Method {
				return answer, nil
			}
		}
	}
	return nil, errSilent
}

// read takes one message; data in it is kept.
func (e *turnEnd) read(deadline time.Time) (*stun.Message, error) {
	if err := e.conn.SetReadDeadline(deadline); err != nil {
		return nil, e.failed(err)
	}
	raw, err := e.packet()
	if err != nil {
		return nil, e.failed(err)
	}
	m := &stun.Message{Raw: raw}
	if err := m.Decode(); err != nil {
		return nil, fmt.Errorf("TURN answer: %w", err)
	}
	if m.Type == stun.NewType(stun.MethodData, stun.ClassIndication) {
		if data, err := m.Get(stun.AttrData); err == nil {
			e.data = append(e.data, data)
		}
	}
	return m, nil
}

// packet is one STUN message as it came.
func (e *turnEnd) packet() ([]byte, error) {
	if e.stream == nil {
		buffer := make([]byte, 1500)
		n, err := e.conn.Read(buffer)
		return buffer[:n], err
	}
	const header = 20
	head, err := e.stream.Peek(header)
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, header+int(binary.BigEndian.Uint16(head[2:])))
	_, err = io.ReadFull(e.stream, buffer)
	return buffer, err
}

// failed is an error of the connection in short. Whatever ran out of time was silent.
func (e *turnEnd) failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed")
	}
	return cause(err)
}
