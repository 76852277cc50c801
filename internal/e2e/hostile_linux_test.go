package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/pion/stun/v2"
)

// resident returns a process's resident memory in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// descriptors returns how many files and sockets a process holds.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// hostileDatagrams makes packets of every kind that parsers meet: noise, real requests with bits turned, lengths that lie.
func hostileDatagrams(seed uint64) func() []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	integrity := stun.NewShortTermIntegrity("guess")
	var models [][]byte
	for _, method := range []stun.Method{stun.MethodBinding, stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind, stun.MethodSend} {
		class := stun.ClassRequest
		if method == stun.MethodSend {
			class = stun.ClassIndication
		}
		setters := []stun.Setter{stun.TransactionID, stun.NewType(method, class)}
		for _, a := range []struct {
			t stun.AttrType
			v string
		}{
			{stun.AttrRequestedTransport, "\x11\x00\x00\x00"}, {stun.AttrLifetime, "\x00\x00\x02\x58"},
			{stun.AttrXORPeerAddress, "\x00\x01\x21\x12\x21\x12\xa4\x43"}, {stun.AttrChannelNumber, "\x40\x00\x00\x00"},
			{stun.AttrUsername, "2000000000:somebody"}, {stun.AttrRealm, "callbox"}, {stun.AttrNonce, "0123456789abcdef"}, {stun.AttrData, "some data"},
		} {
			setters = append(setters, stun.RawAttribute{Type: a.t, Value: []byte(a.v)})
		}
		m := stun.MustBuild(append(setters, integrity, stun.Fingerprint)...)
		models = append(models, m.Raw)
	}
	models = append(models, []byte{0x40, 0x00, 0xff, 0xfc}, []byte{0x40, 0x00, 0, 4, 1, 2, 3, 4}, nil)
	return func() []byte {
		model := models[r.IntN(len(models))]
		if model == nil {
			noise := make([]byte, r.IntN(600))
			for i := range noise {
				noise[i] = byte(r.Uint32())
			}
			return noise
		}
		packet := slices.Clone(model)
		for range r.IntN(4) {
			packet[r.IntN(len(packet))] ^= 1 << r.IntN(8)
		}
		if len(packet) >= 4 && r.IntN(8) == 0 {
			binary.BigEndian.PutUint16(packet[2:], uint16(r.Uint32()))
		}
		if r.IntN(8) == 0 {
			packet = packet[:r.IntN(len(packet)+1)]
		}
		return packet
	}
}

// bindingTimes asks for a Binding again and again until the context ends, and returns how long each answer took; one that does not come counts two seconds.
func bindingTimes(ctx context.Context, source, server string) ([]time.Duration, error) {
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
	conn, err := dialer.Dial("udp4", server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var times []time.Duration
	answer := make([]byte, 1500)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return times, nil
		case <-tick.C:
		}
		request := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
		begun := time.Now()
		if _, err := conn.Write(request.Raw); err != nil {
			return nil, err
		}
		if err := conn.SetReadDeadline(begun.Add(2 * time.Second)); err != nil {
			return nil, err
		}
		if _, err := conn.Read(answer); err != nil {
			times = append(times, 2*time.Second)
			continue
		}
		times = append(times, time.Since(begun))
	}
}

func TestHostileInputCostsLittle(t *testing.T) {
	const (
		datagrams = 1_000_000
		streams   = 1000
		sources   = 1000 // different addresses in different /24 networks
		grows     = 64 << 20
	)
	s := testkit.Serve(t, testkit.Options{Plain: true})
	token, _, _ := roomToken(t, s, "lobby", "guest")
	guest := connect(t, "guest", entrance{urls: []string{s.URL("")}, client: s.Client(), token: token})
	guest.join("lobby")
	// What it holds when it has worked a little is what it is measured by.
	hold := holdAllocation(t, s)
	hold()
	before, handles := resident(t, s.Pid()), descriptors(t, s.Pid())
	said := len(s.Output())

	attack, over := context.WithCancel(t.Context())
	defer over()
	var measuring sync.WaitGroup
	var times []time.Duration
	var failed error
	measuring.Add(1)
	go func() {
		defer measuring.Done()
		times, failed = bindingTimes(attack, "127.200.0.1", s.Addr())
	}()

	// A thousand streams that begin something and never end it, of every kind the port knows; half of them read nothing.
	beginnings := []string{
		"GET / HT", "\x16\x03\x01\x02\x00\x01", "\x00\x03\x00\x50\x21\x12\xa4\x42", "\x00", "\x0d\x0a\x0d\x0a\x00", "POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
	}
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	for i := range streams {
		conn, err := net.Dial("tcp4", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		if _, err := io.WriteString(conn, beginnings[i%len(beginnings)]); err != nil {
			t.Fatal(err)
		}
	}
	// Frames whose length overflows end their connection at once; they must not hold a processor.
	for _, frame := range []string{"\x40\x00\xff\xfc\x00\x00\x00\x00\x00", "\x00\x03\xff\xec\x21\x12\xa4\x42aaaabbbbcccc"} {
		conn, err := net.Dial("tcp4", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		if _, err := io.WriteString(conn, frame); err != nil {
			t.Fatal(err)
		}
	}

	next := hostileDatagrams(1)
	var sockets []*net.UDPConn
	target := net.UDPAddrFromAddrPort(mustAddrPort(t, s.Addr()))
	for i := range sources {
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, byte(1+i/250), byte(i%250), 1)}, target)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		sockets = append(sockets, conn)
	}
	worst := int64(0)
	for i := range datagrams {
		_, _ = sockets[i%len(sockets)].Write(next())
		if i%50_000 == 0 {
			worst = max(worst, resident(t, s.Pid()))
		}
	}
	worst = max(worst, resident(t, s.Pid()))
	over()
	measuring.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	if s.Ended() {
		t.Fatal("the server has ended")
	}
	if growth := worst - before; growth > grows {
		t.Errorf("resident memory grew by %d MiB, from %d MiB", growth>>20, before>>20)
	}
	slices.Sort(times)
	if len(times) < 100 {
		t.Fatalf("only %d Bindings measured", len(times))
	}
	p99 := times[len(times)*99/100]
	t.Logf("memory from %d MiB to at most %d MiB; %d Bindings, median %v, p99 %v", before>>20, worst>>20, len(times), times[len(times)/2], p99)
	if p99 > 100*time.Millisecond {
		t.Errorf("Binding answers: p99 %v", p99)
	}
	if grown := len(s.Output()) - said; grown > 1<<20 {
		t.Errorf("the flood made %d KiB of log", grown>>10)
	}
	guest.join("lobby")

	// When it is over nothing is left of it.
	for _, conn := range open {
		_ = conn.Close()
	}
	testkit.Eventually(t, 60*time.Second, "the sockets are gone", func() error {
		if now := descriptors(t, s.Pid()); now > handles+8 {
			return fmt.Errorf("%d open files, %d before", now, handles)
		}
		return nil
	})
	guest.clean()
}
