package e2e

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/pion/turn/v3"
)

// soakFor is how long the soak lasts: short in every run, longer where TEST_SOAK says so (make soak).
func soakFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("TEST_SOAK")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// oneAllocation makes an allocation over UDP or TCP, and ends it in one of the ways clients do: with a Refresh of 0, or without a word.
func oneAllocation(s *testkit.Server, c testkit.Credential, stream, politely bool) error {
	var conn net.PacketConn
	if stream {
		tcp, err := net.Dial("tcp4", s.Addr())
		if err != nil {
			return err
		}
		conn = turn.NewSTUNConn(tcp)
	} else {
		udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		conn = udp
	}
	defer func() { _ = conn.Close() }()
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: s.Addr(), TURNServerAddr: s.Addr(), Conn: conn, Username: c.Username, Password: c.Password, Realm: "callbox",
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Listen(); err != nil {
		return err
	}
	relay, err := client.Allocate()
	if err != nil {
		return err
	}
	if politely {
		return relay.Close()
	}
	// The client's own timers end with its relay; what it would tell the server goes nowhere.
	_ = conn.Close()
	_ = relay.Close()
	return nil
}

func TestAllocationsComeAndGoWithoutTrace(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Plain: true, Args: []string{"--user-quota", "0"}})
	c := s.Credential("soak")
	for range 50 {
		for _, stream := range []bool{false, true} {
			if err := oneAllocation(s, c, stream, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	goroutines, handles, memory := gauge(t, s, "go_goroutines"), descriptors(t, s.Pid()), resident(t, s.Pid())

	end := time.Now().Add(soakFor(t))
	var done atomic.Int64
	var working sync.WaitGroup
	faults := make(chan error, 8)
	for worker := range cap(faults) {
		working.Add(1)
		go func() {
			defer working.Done()
			for i := 0; time.Now().Before(end); i++ {
				stream := (worker+i)%2 == 0
				// Over UDP a client that goes without a word keeps its allocation for its lifetime, as it must; over TCP the end of the connection ends it.
				if err := oneAllocation(s, c, stream, !stream || i%3 != 0); err != nil {
					faults <- fmt.Errorf("allocation %d of worker %d: %w", i, worker, err)
					return
				}
				done.Add(1)
			}
		}()
	}
	working.Wait()
	close(faults)
	for err := range faults {
		t.Error(err)
	}
	t.Logf("%d allocations", done.Load())
	if done.Load() < 500 {
		t.Errorf("only %d allocations were made", done.Load())
	}
	testkit.Eventually(t, 60*time.Second, "everything is given back", func() error {
		if now := descriptors(t, s.Pid()); now > handles+4 {
			return fmt.Errorf("%d open files, %d before", now, handles)
		}
		if now := gauge(t, s, "go_goroutines"); now > goroutines+8 {
			return fmt.Errorf("%v goroutines, %v before", now, goroutines)
		}
		return nil
	})
	if grown := resident(t, s.Pid()) - memory; grown > 32<<20 {
		t.Errorf("resident memory grew by %d MiB, from %d MiB", grown>>20, memory>>20)
	}
}
