package relay

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

// rss is the process's resident memory in bytes; 0 where the system does not tell.
func rss() int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int
	fmt.Sscan(string(b), &size, &resident)
	return resident * os.Getpagesize()
}

// sockets counts the process's open sockets; 0 where the system does not tell.
func sockets() int {
	list, _ := os.ReadDir("/proc/self/fd")
	n := 0
	for _, e := range list {
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(link, "socket:") {
			n++
		}
	}
	return n
}

const memoryBound = 64 << 20

// TestFloodOfDatagrams sends random and mutated datagrams while somebody else asks for a Binding now and then.
func TestFloodOfDatagrams(t *testing.T) {
	count := 1_000_000
	if raceEnabled {
		count = 100_000 // the race detector makes everything ten times slower
	}
	s := newServer(t, nil)
	good := dial(t, s, "udp")
	good.allocate()
	w := dial(t, s, "udp")
	seeds := [][]byte{
		w.bare(stun.MethodBinding).Raw,
		w.bare(stun.MethodAllocate).Raw,
		w.signed(stun.MethodAllocate, transportUDP).Raw,
		w.signed(stun.MethodCreatePermission, peer("8.8.8.8:1")).Raw,
		channelData(0x4000, random(100)),
	}
	before := rss()
	stop := make(chan struct{})
	var flood sync.WaitGroup
	for range 4 {
		c, err := net.Dial("udp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		flood.Go(func() {
			for i := range count / 4 {
				if i%3 == 0 {
					c.Write(random(rand.IntN(1500)))
				} else {
					c.Write(mutate(seeds[i%len(seeds)]))
				}
			}
		})
	}
	go func() { flood.Wait(); close(stop) }()

	// The flood fills the kernel's buffer too, so a lost request is sent again, as every STUN client does. How long answers take is
	// asked where the relay is a process of its own, and need not share Go's scheduler with whoever floods it.
	var times []time.Duration
	for over := false; !over; {
		select {
		case <-stop:
			over = true
		default:
		}
		m := w.bare(stun.MethodBinding)
		times = append(times, roundTrip(w, m.Raw))
	}
	slices.Sort(times)
	if grown := rss() - before; grown > memoryBound {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	// What the flood left in the kernel's buffer may still be in the way.
	roundTrip(good, good.signed(stun.MethodRefresh).Raw)
	if n := len(s.Allocations()); n != 1 {
		t.Errorf("%d allocations", n)
	}
	t.Logf("%d Binding answers, half of them within %v, resident +%d KB", len(times), times[len(times)/2], (rss()-before)>>10)
}

// roundTrip sends a request until the answer of its transaction is there, and says how long that took.
func roundTrip(w *wire, request []byte) time.Duration {
	w.Helper()
	start := time.Now()
	w.send(request)
	for {
		answer, err := w.tryReceive(25 * time.Millisecond)
		switch {
		case err == nil && string(answer[8:20]) == string(request[8:20]):
			return time.Since(start)
		case time.Since(start) > answerTimeout:
			w.Fatal("no answer")
		case err != nil:
			w.send(request)
		}
	}
}

func TestThousandHalfOpenStreams(t *testing.T) {
	s := newServer(t, func(c *Config) { c.timing.firstRequest = 2 * time.Second })
	before, goroutines := rss(), runtime.NumGoroutine()
	var streams []net.Conn
	for i := range 1000 {
		c, err := net.Dial("tcp", s.tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		switch i % 3 {
		case 1:
			c.Write([]byte{0})
		case 2: // promises much
			c.Write([]byte("\x00\x01\x24\x00\x21\x12\xa4\x42"))
		}
		streams = append(streams, c)
	}
	dial(t, s, "tcp").allocate()
	dial(t, s, "udp").alive()
	if grown := rss() - before; grown > memoryBound {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	for _, c := range streams {
		(&wire{TB: t, conn: c, tcp: true}).closed()
	}
	eventually(t, "one stream is left", func() bool { return s.Stats().Streams[TCP] == 1 })
	eventually(t, "goroutines return", func() bool { return runtime.NumGoroutine() < goroutines+20 })
}

// TestSoak lets allocations of all kinds come and go, for a second or as long as TEST_SOAK says, and looks whether
// everything returns to where it was.
func TestSoak(t *testing.T) {
	length := time.Second
	if text := os.Getenv("TEST_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	planes(t, func(c *Config) {
		allowLoopback(c)
		c.Quota.UnauthRate = -1
		c.timing.reservation = 10 * time.Millisecond
	}, func(t *testing.T, change func(*Config)) { soak(t, newServer(t, change), length) })
}

func soak(t *testing.T, s *testServer, length time.Duration) {
	to := echo(t, "127.0.0.1:0").AddrPort()
	round := func() {
		var clients sync.WaitGroup
		for i := range 16 {
			clients.Go(func() {
				network := []string{"udp", "tcp"}[i%2]
				w, err := soakClient(s, network, fmt.Sprintf("%d:user%d", i, i))
				if err != nil {
					t.Error(err)
					return
				}
				w.TB = t
				defer w.conn.Close()
				var with []stun.Setter
				switch i % 5 {
				case 1:
					with = append(with, attr(stun.AttrEvenPort, 0x80))
				case 2:
					with = append(with, asksBoth)
				}
				w.allocate(with...)
				w.succeed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(to))
				w.send(channelData(0x4000, []byte("soak")))
				if got := w.onChannel(0x4000); string(got) != "soak" {
					t.Errorf("%q", got)
				}
				switch i % 3 {
				case 0:
					w.succeed(stun.MethodRefresh, lifetime(0))
				case 1:
					s.Revoke(func(o Owner) bool { return o.User == fmt.Sprintf("user%d", i) })
				case 2:
					if network == "udp" { // a stream's allocation goes with the stream
						w.succeed(stun.MethodRefresh, lifetime(0))
					}
				}
			})
		}
		clients.Wait()
	}
	settled := func() (int, int) {
		eventually(t, "allocations and streams are gone", func() bool {
			return len(s.Allocations()) == 0 && s.Stats().Streams[TCP] == 0
		})
		eventually(t, "reserved addresses are free", func() bool {
			s.table.mu.RLock()
			defer s.table.mu.RUnlock()
			return len(s.table.relayed) == 0 && len(s.table.hosts) == 0 && len(s.table.flows) == 0
		})
		runtime.GC()
		return sockets(), runtime.NumGoroutine()
	}
	round()
	socketsBefore, goroutinesBefore := settled()
	memoryBefore := heap()
	rounds := 0
	for start := time.Now(); time.Since(start) < length && !t.Failed(); rounds++ {
		round()
	}
	settled()
	eventually(t, "sockets and goroutines return", func() bool {
		n, g := settled()
		return n <= socketsBefore && g <= goroutinesBefore
	})
	eventually(t, "nothing is on anybody's account", func() bool {
		s.accounts.mu.Lock()
		defer s.accounts.mu.Unlock()
		s.streams.mu.Lock()
		defer s.streams.mu.Unlock()
		return len(s.accounts.open) == 0 && s.accounts.total == 0 && len(s.streams.sources) == 0
	})
	grown := heap() - memoryBefore
	if grown > 8<<20 {
		t.Errorf("memory grew by %d KB", grown>>10)
	}
	t.Logf("%d rounds, %d allocations, memory +%d KB", rounds, s.Stats().Created, grown>>10)
}

// heap is the memory that is reachable, and the stacks, in bytes. What a pool still keeps takes two collections to go.
func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// soakClient is dial for a goroutine of a test: it closes nothing by itself.
func soakClient(s *testServer, network, username string) (*wire, error) {
	addr := s.tcp.Addr().String()
	if network == "udp" {
		addr = s.Addr().String()
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return (&wire{conn: c, tcp: network == "tcp"}).as(username), nil
}
