package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

// TestNoPacketReachesAnother: every payload says whose it is, and whoever gets it looks, while allocations come and go, are revoked,
// and the public address changes.
func TestNoPacketReachesAnother(t *testing.T) {
	for _, ports := range []PortRange{{49152, 65535}, {}} {
		name := "sealed"
		if !ports.sealed() {
			name = "open"
		}
		t.Run(name, func(t *testing.T) {
			planes(t, func(c *Config) {
				allowLoopback(c)
				c.Ports = ports
				c.Quota.UnauthRate = -1
			}, owners)
		})
	}
}

func owners(t *testing.T, change func(*Config)) {
	s := newServer(t, change)
	socketsBefore := sockets()
	stop := make(chan struct{})
	var around, workers sync.WaitGroup
	around.Go(func() { // the address changes and sessions are revoked
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			list := []netip.Addr{loopbackFour}
			if i%2 == 0 {
				list = nil
			}
			s.SetPublic(list)
			s.Revoke(func(o Owner) bool { return o.User == fmt.Sprintf("worker%d", i%9) }) // the ninth is nobody
		}
	})
	var got [8]int
	const rounds = 12
	for id := range got {
		workers.Go(func() {
			for round := range rounds {
				got[id] += owner(t, s, uint32(id), round, s.cfg.Ports.sealed() || id%3 == 2)
			}
		})
	}
	workers.Wait()
	close(stop)
	around.Wait()
	all := 0
	for _, n := range got {
		all += n
	}
	if all == 0 {
		t.Error("no packet came")
	}
	eventually(t, "everything is given back", func() bool {
		s.Revoke(func(Owner) bool { return true })
		return len(s.Allocations()) == 0 && s.Stats().Streams[TCP] == 0 && sockets() <= socketsBefore
	})
}

// owner sends payloads with its name to a peer that sends them back, and returns how many came: as many as the revocations let. The peer is
// another client of the server, or a socket.
func owner(t *testing.T, s *testServer, id uint32, round int, inside bool) (came int) {
	w, err := soakClient(s, []string{"udp", "tcp"}[(int(id)+round)%2], fmt.Sprintf("%d:worker%d", id, id))
	if err != nil {
		t.Error(err)
		return 0
	}
	w.TB = t
	defer w.conn.Close()
	relayed, ok := w.mayAllocate()
	if !ok {
		return 0
	}
	var far net.Conn
	var to netip.AddrPort
	if inside {
		o, err := soakClient(s, "udp", fmt.Sprintf("%d:other%d", id, id))
		if err != nil {
			t.Error(err)
			return 0
		}
		o.TB = t
		far = o.conn
		if to, ok = o.mayAllocate(); !ok || !o.may(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(relayed)) {
			far.Close()
			return 0
		}
		defer o.may(stun.MethodRefresh, lifetime(0))
	} else {
		pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Error(err)
			return 0
		}
		defer pc.Close()
		far, to = pc, pc.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	if !w.may(stun.MethodChannelBind, channelNumber(0x4000+uint16(id)), xorPeer(to)) {
		return 0
	}
	const packets = 10
	name := binary.BigEndian.AppendUint32([]byte("owner"), id)
	for i := range packets {
		payload := append(bytes.Clone(name), random(100+i)...)
		if _, err := w.conn.Write(channelData(0x4000+uint16(id), payload)); err != nil {
			return came // revoked
		}
	}
	b := make([]byte, 2048)
	deadline := time.Now().Add(300 * time.Millisecond)
	for range packets {
		far.SetReadDeadline(deadline)
		n, from, err := readFrom(far, b)
		if err != nil {
			return came
		}
		if !bytes.Contains(b[:n], name) {
			t.Errorf("the peer of %d got % x", id, b[:min(n, 16)])
		}
		if err := writeTo(far, b[:n], from); err != nil {
			return came
		}
		back, err := w.tryReceive(300 * time.Millisecond)
		if err != nil {
			return came
		}
		if !isChannelData(back) {
			continue
		}
		if !bytes.HasPrefix(back[channelHeader:], name) || binary.BigEndian.Uint16(back) != 0x4000+uint16(id) {
			t.Errorf("%d got % x", id, back[:min(len(back), 16)])
		}
		came++
	}
	w.may(stun.MethodRefresh, lifetime(0))
	return came
}

func readFrom(c net.Conn, b []byte) (int, netip.AddrPort, error) {
	return c.(*net.UDPConn).ReadFromUDPAddrPort(b)
}

// writeTo answers over a socket that is connected, a client's, or not, a peer's.
func writeTo(c net.Conn, b []byte, to netip.AddrPort) error {
	if c.RemoteAddr() != nil {
		_, err := c.Write(b)
		return err
	}
	_, err := c.(*net.UDPConn).WriteToUDPAddrPort(b, to)
	return err
}

// may is do for a client that may be revoked meanwhile: it reports whether the request succeeded.
func (w *wire) may(method stun.Method, attrs ...stun.Setter) bool {
	_, ok := w.mayAsk(method, attrs...)
	return ok
}

func (w *wire) mayAllocate() (netip.AddrPort, bool) {
	m, ok := w.mayAsk(stun.MethodAllocate, transportUDP)
	if !ok {
		return netip.AddrPort{}, false
	}
	return w.address(m, stun.AttrXORRelayedAddress), true
}

func (w *wire) mayAsk(method stun.Method, attrs ...stun.Setter) (*stun.Message, bool) {
	for range 3 {
		m := w.bare(stun.MethodAllocate)
		if w.nonce != "" {
			m = w.signed(method, attrs...)
		}
		if _, err := w.conn.Write(m.Raw); err != nil {
			return nil, false
		}
		for {
			b, err := w.tryReceive(answerTimeout)
			if err != nil {
				return nil, false
			}
			if !looksLikeSTUN(b) {
				continue
			}
			answer := w.decode(b)
			if answer.TransactionID != m.TransactionID {
				continue
			}
			if errorCode(answer) == 401 && w.nonce == "" {
				w.realm, w.nonce = w.text(answer, stun.AttrRealm), w.text(answer, stun.AttrNonce)
				break
			}
			return answer, answer.Type.Class == stun.ClassSuccessResponse
		}
	}
	return nil, false
}
