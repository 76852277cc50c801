package callboxtest_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pion/turn/v3"
	"go.uber.org/goleak"

	"callbox/callboxtest"
	"callbox/signal/client"
)

const (
	password = "correct horse battery"
	patience = 40 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// await takes events until there is one of a type.
func await[E client.Event](t *testing.T, c *client.Client) E {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		e, err := c.Next(ctx)
		if err != nil {
			var want E
			t.Fatalf("before %T: %v", want, err)
		}
		if e, ok := e.(E); ok {
			return e
		}
	}
}

func join(t *testing.T, c *client.Client, room string) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := c.Join(ctx, room); err != nil {
		t.Fatal(err)
	}
	return c
}

// meet waits until a has seen b come into the room: before that a signal may find nobody.
func meet(t *testing.T, a, b *client.Client) {
	t.Helper()
	for await[client.PeerJoined](t, a).Peer.ID != b.Self().ID {
	}
}

// talk carries an offer and an answer between two peers.
func talk(t *testing.T, a, b *client.Client) {
	t.Helper()
	say := func(from, to *client.Client, text string) {
		t.Helper()
		if err := from.Signal(t.Context(), to.Self().ID, text); err != nil {
			t.Fatal(err)
		}
		if s := await[client.Signal](t, to); s.From != from.Self().ID || string(s.Data) != `"`+text+`"` {
			t.Errorf("%s: %+v", text, s)
		}
	}
	say(a, b, "offer")
	say(b, a, "answer")
}

func TestServerAloneSignsInSignalsAndRelays(t *testing.T) {
	s := callboxtest.Start(t)
	s.AddUser("ada", password)
	resp, err := s.LogIn("ada", password).Get(s.URL + "/call/tea")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("call page: %s", resp.Status)
	}
	one, two := join(t, s.Client("tea", "one"), "tea"), join(t, s.Client("tea", "two"), "tea")
	meet(t, one, two)
	talk(t, one, two)
	// A user may be called by name.
	ada := s.UserClient("ada", password)
	if _, _, err := join(t, s.Client("tea", "three"), "tea").Call(t.Context(), "ada", "tea"); err != nil {
		t.Error(err)
	}
	if r := await[client.Ring](t, ada); r.From.User != "three" || r.Room != "tea" {
		t.Errorf("ring: %+v", r)
	}
	s.RemoveUser("ada")
	for {
		if _, err := ada.Next(t.Context()); err != nil {
			break
		}
	}
	ice := s.ICEServers("tea", "one")
	if len(ice.Servers) < 2 || !strings.Contains(strings.Join(ice.Servers[1].URLs, " "), "turn:"+s.Addr) || ice.Servers[1].Credential == "" {
		t.Errorf("ICE servers: %+v", ice)
	}
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) { relay(t, s, network) })
	}
}

// relay sends through the server to a peer on loopback and back.
func relay(t *testing.T, s *callboxtest.Server, network string) {
	t.Helper()
	c := s.TURN("ada")
	var conn net.PacketConn
	if network == "tcp" {
		stream, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		conn = turn.NewSTUNConn(stream)
	} else {
		var err error
		if conn, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = conn.Close() }()
	turnClient, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: s.Addr, TURNServerAddr: s.Addr, Conn: conn,
		Username: c.Username, Password: c.Password, Realm: c.Realm,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer turnClient.Close()
	if err := turnClient.Listen(); err != nil {
		t.Fatal(err)
	}
	relayed, err := turnClient.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = relayed.Close() }()
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	// A datagram may be lost.
	buf := make([]byte, 64)
	deadline := time.Now().Add(patience)
	for got := ""; got != "ping"; {
		if time.Now().After(deadline) {
			t.Fatal("nothing is relayed to a loopback peer")
		}
		if _, err := relayed.WriteTo([]byte("ping"), peer.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		_ = peer.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, from, err := peer.ReadFrom(buf)
		if err != nil {
			continue
		}
		if got = string(buf[:n]); from.String() != relayed.LocalAddr().String() {
			t.Errorf("from %s, relayed address %s", from, relayed.LocalAddr())
		}
	}
}

func TestPeersOfTwoNodesTalkOverOneRedis(t *testing.T) {
	c := callboxtest.StartCluster(t, 2)
	c.Nodes[0].AddUser("ada", password)
	a := join(t, c.Nodes[0].Client("tea", "one"), "tea")
	b := join(t, c.Nodes[1].Client("tea", "two"), "tea")
	meet(t, a, b)
	talk(t, a, b)
	// A user and a token of one node are good at the other at once.
	c.Nodes[1].UserClient("ada", password)
	c.Nodes[1].Dial(client.Options{Token: c.Nodes[0].RoomToken("tea", "four")})
	// The test may stop a node; what is left goes on.
	c.Nodes[1].Close()
	three := join(t, c.Nodes[0].Client("tea", "three"), "tea")
	meet(t, a, three)
	talk(t, a, three)
}

func TestKilledNodesClientsComeBackElsewhere(t *testing.T) {
	c := callboxtest.StartCluster(t, 2)
	a, b := join(t, c.Nodes[0].Client("tea", "one"), "tea"), join(t, c.Nodes[1].Client("tea", "two"), "tea")
	meet(t, a, b)
	talk(t, a, b)
	was := a.Self().ID
	c.Kill(0)
	if e := await[client.Disconnected](t, a); e.Err == nil {
		t.Error("no reason")
	}
	if e := await[client.Connected](t, a); e.Resumed || e.Peer != was {
		t.Errorf("connected: %+v", e)
	}
	await[client.Joined](t, a)
	talk(t, a, b)
	if conn, err := net.Dial("tcp", c.Nodes[0].Addr); err == nil {
		_ = conn.Close()
		t.Error("the killed node still listens")
	}
	// The test goes on with what is left.
	c.Nodes[1].AddUser("ada", password)
}

func TestOutageOfRedisIsForTheTestToMake(t *testing.T) {
	c := callboxtest.StartCluster(t, 2)
	a, b := join(t, c.Nodes[0].Client("tea", "one"), "tea"), join(t, c.Nodes[1].Client("tea", "two"), "tea")
	meet(t, a, b)
	talk(t, a, b)
	c.Redis.Close()
	if err := c.Redis.Restart(); err != nil {
		t.Fatal(err)
	}
	// What is said meanwhile arrives or comes back; in the end everything does again.
	deadline := time.Now().Add(patience)
	for heard := false; !heard; {
		if time.Now().After(deadline) {
			t.Fatal("nothing arrives after the outage")
		}
		if err := a.Signal(t.Context(), b.Self().ID, "anybody?"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		for !heard {
			e, err := b.Next(ctx)
			if err != nil {
				break
			}
			_, heard = e.(client.Signal)
		}
		cancel()
	}
}
