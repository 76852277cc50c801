package signal

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"callbox/bus/memory"
)

// bare is a client that costs next to nothing, so that a benchmark shows the server.
type bare struct {
	net.Conn
	br   *bufio.Reader
	peer string
}

// maskedFrame is a client's text frame with the mask zero (RFC 6455, section 5.3).
func maskedFrame(s string) []byte {
	b := []byte{0x81}
	if len(s) < 126 {
		b = append(b, 0x80|byte(len(s)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(s)))
	}
	return append(append(b, 0, 0, 0, 0), s...)
}

func openBare(t testing.TB, addr, user string) *bare {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &bare{Conn: nc, br: bufio.NewReaderSize(nc, 4096)}
	_, _ = fmt.Fprintf(nc, "GET /ws?user=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: callbox.v1\r\n\r\n", user)
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			break
		}
	}
	c.say(t, `{"type":"hello"}`)
	var m message
	if err := json.Unmarshal(c.frame(t), &m); err != nil {
		t.Fatal(err)
	}
	c.peer = m.peerID()
	c.say(t, `{"type":"ack","seq":1}`)
	return c
}

func (c *bare) say(t testing.TB, s string) {
	if _, err := c.Write(maskedFrame(s)); err != nil {
		t.Fatal(err)
	}
}

// frame reads one frame from the server.
func (c *bare) frame(t testing.TB) []byte {
	var h [2]byte
	if _, err := io.ReadFull(c.br, h[:]); err != nil {
		t.Fatal(err)
	}
	n := int(h[1])
	if n == 126 {
		if _, err := io.ReadFull(c.br, h[:]); err != nil {
			t.Fatal(err)
		}
		n = int(binary.BigEndian.Uint16(h[:]))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.br, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *bare) awaitFrame(t testing.TB, typ string) {
	for !strings.HasPrefix(string(c.frame(t)), `{"type":"`+typ+`"`) {
	}
}

// benchNodes are hubs behind real servers, without the limits on rates.
func benchNodes(t testing.TB, count int) []string {
	network := memory.NewNetwork()
	var addrs []string
	for i := range count {
		b, err := network.Open(memory.Config{Name: fmt.Sprint("n", i)})
		if err != nil {
			t.Fatal(err)
		}
		h := New(Config{Bus: b, Limits: Limits{MessageRate: 1 << 30, MessageBytes: 1 << 40}})
		if err := b.Start(handler{h}); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc((&node{hub: h}).serve)}
		go func() { _ = srv.Serve(l) }()
		addrs = append(addrs, l.Addr().String())
		t.Cleanup(func() {
			_ = h.Close()
			_ = srv.Close()
			_ = b.Close()
		})
	}
	return addrs
}

func benchSignals(b *testing.B, from, to string) {
	a, z := openBare(b, from, "a"), openBare(b, to, "z")
	defer a.Close()
	defer z.Close()
	z.say(b, `{"type":"join","room":"r"}`)
	z.awaitFrame(b, "joined")
	a.say(b, `{"type":"join","room":"r"}`)
	a.awaitFrame(b, "joined")
	z.awaitFrame(b, "peer-joined")
	data := `{"candidate":"candidate:842163049 1 udp 1677729535 198.51.100.7 52431 typ srflx raddr 0.0.0.0 rport 0 generation 0 ufrag abcd","sdpMid":"0","sdpMLineIndex":0}`
	f := maskedFrame(fmt.Sprintf(`{"type":"signal","to":%q,"data":%s}`, z.peer, data))
	seq := 3
	b.Run("one at a time", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, err := a.Write(f); err != nil {
				b.Fatal(err)
			}
			z.frame(b)
			if seq++; seq%32 == 0 {
				z.say(b, fmt.Sprintf(`{"type":"ack","seq":%d}`, seq))
			}
		}
	})
	b.Run("streaming", func(b *testing.B) {
		b.ReportAllocs()
		const window = 512
		credit := make(chan struct{}, window)
		go func() {
			for range b.N {
				credit <- struct{}{}
				if _, err := a.Write(f); err != nil {
					return
				}
			}
		}()
		for range b.N {
			z.frame(b)
			if seq++; seq%32 == 0 {
				z.say(b, fmt.Sprintf(`{"type":"ack","seq":%d}`, seq))
			}
			<-credit
		}
	})
}

func BenchmarkSignalLocal(b *testing.B) {
	addrs := benchNodes(b, 1)
	benchSignals(b, addrs[0], addrs[0])
}

func BenchmarkSignalAcrossNodes(b *testing.B) {
	addrs := benchNodes(b, 2)
	benchSignals(b, addrs[0], addrs[1])
}

// BenchmarkIdleConnection reports what a connection keeps when nothing happens: session, room, reader.
func BenchmarkIdleConnection(b *testing.B) {
	addr := benchNodes(b, 1)[0]
	const count = 3000
	clients := make([]net.Conn, count)
	before := memoryInUse()
	for i := range clients {
		c := openBare(b, addr, "u")
		c.say(b, fmt.Sprintf(`{"type":"join","room":"r%d"}`, i/2))
		c.awaitFrame(b, "joined")
		clients[i] = c.Conn // its buffer is not the server's
	}
	for range 3 { // stacks shrink step by step
		runtime.GC()
	}
	perConn := (memoryInUse() - before) / count
	b.ReportMetric(float64(perConn), "B/conn")
	b.ReportMetric(0, "ns/op")
	if perConn > 12<<10 {
		b.Errorf("%d bytes for an idle connection", perConn)
	}
	for _, c := range clients {
		_ = c.Close()
	}
}

func memoryInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func BenchmarkDecode(b *testing.B) {
	sdp := strings.Repeat(`a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\n`, 30) // as offers are
	f := []byte(`{"type":"signal","to":"q8Jx0v3mWkTeYb2s","data":{"description":{"type":"offer","sdp":"` + sdp + `"}},"seq":12}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(f)))
	for range b.N {
		if _, f := decode(f); f != nil {
			b.Fatal(f)
		}
	}
}

func TestDecodingASignalAllocatesItsAddressOnly(t *testing.T) {
	f := []byte(`{"type":"signal","to":"q8Jx0v3mWkTeYb2s","data":{"a":"bcdefghijklmnop"},"seq":12}`)
	if n := testing.AllocsPerRun(1000, func() {
		if _, f := decode(f); f != nil {
			t.Fatal(f)
		}
	}); n > 2 {
		t.Error(n, "allocations")
	}
}
