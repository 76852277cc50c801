package relay

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

func TestTLS(t *testing.T) {
	s := newServer(t, nil)
	cert := selfSigned(t)
	a, b := tcpPair(t)
	go s.ServeStream(tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}}))
	c := tls.Client(a, &tls.Config{InsecureSkipVerify: true})
	w := (&wire{TB: t, conn: c, tcp: true}).as("1:alice")
	w.allocate()
	list := s.Allocations()
	if len(list) != 1 || list[0].Transport != TLS || list[0].Owner.User != "alice" || list[0].Client.String() != a.LocalAddr().String() {
		t.Fatalf("%+v", list)
	}

	// Many answers at once: a record holds one.
	var all []byte
	const many = 50
	for range many {
		all = append(all, stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw...)
	}
	if _, err := c.Write(all); err != nil {
		t.Fatal(err)
	}
	record := make([]byte, 16<<10)
	for range many {
		n, err := c.Read(record) // of one record at most
		if err != nil {
			t.Fatal(err)
		}
		if size, err := frameSize(record[:n]); err != nil || size != n {
			t.Fatalf("a record of %d bytes begins with a message of %d: %v", n, size, err)
		}
	}
	c.Close()
	eventually(t, "the stream is gone", func() bool { return s.Stats().Streams[TLS] == 0 })
}

// TestTLSInShards: sessions whose connection a shard reads get what others do, in order, and hear of the end.
func TestTLSInShards(t *testing.T) {
	s := newServer(t, nil)
	cert := selfSigned(t)
	var ends []*wire
	for _, user := range []string{"1:alice", "1:bob"} {
		client, server := tcpPair(t)
		session := tls.Server(&looked{Conn: server}, &tls.Config{Certificates: []tls.Certificate{cert}})
		go func() {
			if session.Handshake() == nil {
				s.ServeStream(&looked{Conn: session})
			}
		}()
		secret := tls.Client(client, &tls.Config{InsecureSkipVerify: true}) // the certificate is the test's own
		ends = append(ends, (&wire{TB: t, conn: secret, tcp: true}).as(user))
	}
	relayed := []netip.AddrPort{ends[0].allocate(), ends[1].allocate()}
	for i, w := range ends {
		w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(relayed[1-i]))
	}
	for _, a := range s.Allocations() {
		if a.Transport != TLS {
			t.Fatalf("transport %v", a.Transport)
		}
	}
	for i := range 2 {
		var all []byte // several messages a record, and several records a write
		for n := range 100 {
			all = append(all, channelData(0x4000, binary.BigEndian.AppendUint32(random(500), uint32(n)))...)
		}
		for len(all) > 0 {
			n := min(len(all), 3333)
			ends[i].send(all[:n])
			all = all[n:]
		}
		for n := range 100 {
			if b := ends[1-i].onChannel(0x4000); binary.BigEndian.Uint32(b[500:]) != uint32(n) {
				t.Fatalf("message %d is another", n)
			}
		}
	}
	s.Revoke(func(o Owner) bool { return o.User == "alice" })
	ends[0].conn.SetReadDeadline(time.Now().Add(answerTimeout))
	if _, err := ends[0].conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the end of the session: %v", err)
	}
	ends[1].alive()
}
