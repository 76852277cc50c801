package udp

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tcpPair is a connection: the client's end, and the server's, which a loop has taken over.
func tcpPair(t *testing.T, l *Loop) (*net.TCPConn, *TCP) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := l.Take(server.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tcp.Close)
	return client.(*net.TCPConn), tcp
}

// start serves a connection and says when it has ended.
func start(t *testing.T, tcp *TCP, s Service) (ended chan struct{}) {
	t.Helper()
	return serve(t, tcp, time.Minute, s)
}

func serve(t *testing.T, tcp *TCP, patience time.Duration, s Service) (ended chan struct{}) {
	t.Helper()
	ended = make(chan struct{})
	s.Ended, s.Patience = func() { close(ended) }, patience
	if err := tcp.Start(s); err != nil {
		t.Fatal(err)
	}
	return ended
}

func await(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("never: %s", what)
	}
}

// TestFirstBytesOfAnyLength: what has been read before the loop had the connection may be more than one of the loop's slots.
func TestFirstBytesOfAnyLength(t *testing.T) {
	for _, n := range []int{1, streamRead - 1, streamRead, streamRead + 1, 3 * streamRead} {
		client, tcp := tcpPair(t, startLoop(t))
		first, second := bytes.Repeat([]byte("first"), n)[:n], []byte("second")
		var got []byte
		ended := start(t, tcp, Service{First: bytes.Clone(first), Handle: func(b []byte) ([]byte, bool) {
			keep := min(len(b)%7, len(b)) // some are left for the next time
			if len(b) < 7 {
				keep = 0
			}
			got = append(got, b[:len(b)-keep]...)
			return b[len(b)-keep:], true
		}})
		if _, err := client.Write(second); err != nil {
			t.Fatal(err)
		}
		client.CloseWrite()
		await(t, "the end", ended)
		tcp.Close()
		// The last few bytes may have been left, and nothing came behind them.
		if all := append(first, second...); !bytes.HasPrefix(all, got) || len(all)-len(got) > 6 {
			t.Errorf("%d bytes looked at: %d of %d were handled", n, len(got), len(all))
		}
	}
}

// fill queues until the kernel takes no more, and returns how much it was.
func fill(t *testing.T, tcp *TCP) (queued int) {
	t.Helper()
	for piece := make([]byte, 64<<10); tcp.Queued() == 0; tcp.Flush() {
		if !tcp.Queue(piece, 1<<20) {
			t.Fatal("it does not take a piece")
		}
		queued += len(piece)
	}
	return queued
}

// TestCloseSendsWhatThereIsRoomFor: a client that has ended its own direction reads on.
func TestCloseSendsWhatThereIsRoomFor(t *testing.T) {
	client, tcp := tcpPair(t, startLoop(t))
	ended := start(t, tcp, Service{Handle: func([]byte) ([]byte, bool) { return nil, true }})
	client.SetReadBuffer(64 << 10)
	queued := fill(t, tcp)
	client.CloseWrite()
	await(t, "the end", ended)
	rest := tcp.Queued()
	if _, err := io.CopyN(io.Discard, client, int64(queued-rest)); err != nil {
		t.Fatal(err)
	}
	tcp.Close()
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.Copy(io.Discard, client); err != nil || int(got) != rest {
		t.Fatalf("%d of %d bytes came: %v", got, rest, err)
	}
}

// TestSlowlyIsNotNever: the kernel says that there is room when much of its memory is free, which takes a slow client a while.
func TestSlowlyIsNotNever(t *testing.T) {
	const patience = 800 * time.Millisecond
	for _, reads := range []bool{true, false} {
		client, tcp := tcpPair(t, startLoop(t))
		ended := serve(t, tcp, patience, Service{Handle: func([]byte) ([]byte, bool) { return nil, true }})
		fill(t, tcp)
		piece := make([]byte, 4<<10)
		over := time.After(5 * patience / 2)
		for alive := true; alive; {
			select {
			case <-ended:
				if reads {
					t.Error("a client that reads all the time was shut down")
				}
				alive = false
			case <-over:
				if !reads {
					t.Error("a client that reads nothing was not shut down")
				}
				alive = false
			case <-time.After(10 * time.Millisecond):
				if reads {
					if _, err := io.ReadFull(client, piece); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		tcp.Shutdown()
		await(t, "the end", ended)
		tcp.Close()
	}
}

// TestLoopRestsWhateverItsConnectionsAreAt: news that nobody takes would come again and again.
func TestLoopRestsWhateverItsConnectionsAreAt(t *testing.T) {
	for name, act := range map[string]func(*net.TCPConn, *TCP){
		"open":              func(*net.TCPConn, *TCP) {},
		"half closed":       func(c *net.TCPConn, _ *TCP) { c.CloseWrite() },
		"reset":             func(c *net.TCPConn, _ *TCP) { c.SetLinger(0); c.Close() },
		"closed":            func(c *net.TCPConn, _ *TCP) { c.Close() },
		"shut down":         func(_ *net.TCPConn, tcp *TCP) { tcp.Shutdown() },
		"half closed twice": func(c *net.TCPConn, tcp *TCP) { c.CloseWrite(); tcp.Shutdown() },
	} {
		for _, full := range []bool{false, true} {
			var rounds atomic.Int64
			l, err := NewLoop(&Outbox{}, func(time.Time) { rounds.Add(1) }, func() {})
			if err != nil {
				t.Fatal(err)
			}
			var running sync.WaitGroup
			running.Go(l.Run)
			client, tcp := tcpPair(t, l)
			ended := start(t, tcp, Service{Handle: func([]byte) ([]byte, bool) { return nil, true }})
			if full {
				fill(t, tcp)
			}
			act(client, tcp)
			if name != "open" {
				await(t, name, ended)
			}
			<-time.After(20 * time.Millisecond)
			if n := rounds.Load(); n > 10 {
				t.Errorf("%s, full %v: %d rounds", name, full, n)
			}
			tcp.Flush() // as another loop may still
			tcp.Close()
			tcp.Close()
			l.Close()
			running.Wait()
		}
	}
}

// TestFlushersMeetTheEnd: whoever queues and flushes while a connection ends and closes has no part in it.
func TestFlushersMeetTheEnd(t *testing.T) {
	l := startLoop(t)
	for i := range 100 {
		client, tcp := tcpPair(t, l)
		ended := start(t, tcp, Service{Handle: func(b []byte) ([]byte, bool) { tcp.Queue(b, 1<<20); tcp.Flush(); return nil, true }})
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for b := make([]byte, 10000); ; tcp.Flush() {
					select {
					case <-ended:
						return
					default:
						tcp.Queue(b, 1<<18)
					}
				}
			})
		}
		switch i % 4 {
		case 0:
			client.SetLinger(0)
			client.Close()
		case 1:
			client.CloseWrite()
		case 2:
			tcp.Shutdown()
		case 3:
			if _, err := io.CopyN(client, client, 1<<16); err != nil { // it reads its own echo among the rest
				t.Fatal(err)
			}
			client.Close()
		}
		await(t, "the end", ended)
		tcp.Close()
		all.Wait()
	}
}
