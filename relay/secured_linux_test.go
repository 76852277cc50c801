package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v2"

	"callbox/relay/internal/udp"
)

// securedPair is a TLS client and the server's end, which a loop has taken over and reads nothing of yet.
func securedPair(t *testing.T) (*tls.Conn, *secured) {
	t.Helper()
	l, err := udp.NewLoop(&udp.Outbox{}, func(time.Time) {}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(l.Run)
	t.Cleanup(func() { l.Close(); running.Wait() })

	near, far := tcpPair(t)
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true}) // the certificate is the test's own
	under := &looked{Conn: far}
	session := tls.Server(under, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
	shaken := make(chan error, 1)
	running.Go(func() { shaken <- client.Handshake() })
	if err := errors.Join(session.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	tcp, err := l.Take(far.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	o := secure(session, under, tcp, func() {})
	t.Cleanup(o.Close)
	return client, o
}

// startSecured has the loop read, and says when it has ended.
func startSecured(t *testing.T, o *secured) (ended chan struct{}) {
	t.Helper()
	ended = make(chan struct{})
	err := o.tcp.Start(udp.Service{
		Through: o, Patience: time.Minute,
		Handle: func([]byte) ([]byte, bool) { return nil, true },
		Ended:  func() { close(ended) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return ended
}

// TestFullSessionGoesOn: however many write at once to a client that reads too slowly, what is dropped are whole messages, and the
// session goes on behind them.
func TestFullSessionGoesOn(t *testing.T) {
	client, o := securedPair(t)
	startSecured(t, o)
	var reading, writing sync.WaitGroup
	reading.Go(func() {
		if n, err := io.Copy(io.Discard, client); err != nil || n%maxFrame != 0 {
			t.Errorf("after %d bytes of messages of %d: %v", n, maxFrame, err)
		}
	})
	defer reading.Wait()
	defer o.Close()
	message := make([]byte, maxFrame)
	for range 16 {
		writing.Go(func() {
			for range 300 {
				if !o.Queue(message, maxPending) {
					o.Flush()
				}
			}
		})
	}
	writing.Wait()
	eventually(t, "what waits is sent", func() bool { o.Flush(); return o.tcp.Queued() == 0 })
	if !o.Queue(message, maxPending) {
		t.Error("the session takes nothing any more")
	}
}

// TestSessionThatLostARecordEnds: nothing can follow a record that was not sent.
func TestSessionThatLostARecordEnds(t *testing.T) {
	_, o := securedPair(t)
	ended := startSecured(t, o)
	// As many answers to key updates as a client can bring about that reads none of them.
	for b := make([]byte, 1<<10); o.tcp.Queue(b, maxRecords); {
	}
	if _, err := o.session.Write([]byte("lost")); err == nil {
		t.Fatal("it was not lost")
	}
	select {
	case <-ended:
	case <-time.After(answerTimeout):
		t.Fatal("the connection goes on")
	}
}

// TestWhatTheSessionItselfSaysLeaves: what nobody flushes waits, and its client is never found to be slow.
func TestWhatTheSessionItselfSaysLeaves(t *testing.T) {
	s := newServer(t, nil)
	near, far := tcpPair(t)
	session := tls.Server(&looked{Conn: far}, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
	go func() { // Server.Close waits for it
		if session.Handshake() == nil {
			s.ServeStream(&looked{Conn: session})
		}
	}()
	w := &wire{TB: t, conn: tls.Client(near, &tls.Config{InsecureSkipVerify: true}), tcp: true}
	w.alive()
	answer := channelData(0x4000, []byte("as if it answered a key update"))
	if _, err := session.Write(answer); err != nil {
		t.Fatal(err)
	}
	w.send(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication)).Raw)
	w.onChannel(0x4000)
}

// TestSessionBeforeItsHandshake: ServeStream is given sessions that nobody has used yet.
func TestSessionBeforeItsHandshake(t *testing.T) {
	s := newServer(t, nil)
	near, far := tcpPair(t)
	go s.ServeStream(tls.Server(&looked{Conn: far}, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})) // Server.Close waits for it
	w := &wire{TB: t, conn: tls.Client(near, &tls.Config{InsecureSkipVerify: true}), tcp: true}
	w.alive()
}
