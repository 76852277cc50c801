package signal

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

func TestPongsAreTakenBetweenMessages(t *testing.T) {
	pong := []byte{0x80 | opPong, 0x80, 1, 2, 3, 4}
	long := append([]byte{0x80 | opPong, 0x80 | 125, 1, 2, 3, 4}, make([]byte, 125)...)
	fragment := []byte{opText, 0x82, 0, 0, 0, 0, '{', '}'}
	h := &Hub{limits: Limits{}.withDefaults()}
	h.clock.Store(time.Now().UnixNano())
	for _, tc := range []struct {
		name     string
		in, left []byte
		alive    bool
	}{
		{"one", pong, nil, true},
		{"two and one with data", bytes.Join([][]byte{pong, pong, long}, nil), nil, true},
		{"before a fragment", append(bytes.Clone(pong), fragment...), fragment, true},
		{"after a fragment", append(bytes.Clone(fragment), pong...), append(bytes.Clone(fragment), pong...), false},
		{"not all here", long[:60], long[:60], false},
		{"head not all here", pong[:5], pong[:5], false},
		{"unmasked", []byte{0x80 | opPong, 0, 0, 0, 0, 0}, []byte{0x80 | opPong, 0, 0, 0, 0, 0}, false},
		{"longer than a control frame may be", []byte{0x80 | opPong, 0x80 | 126, 0, 0, 1, 2, 3, 4}, []byte{0x80 | opPong, 0x80 | 126, 0, 0, 1, 2, 3, 4}, false},
		{"a fragment", []byte{opPong, 0x80, 1, 2, 3, 4}, []byte{opPong, 0x80, 1, 2, 3, 4}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			buf := bytes.Clone(tc.in)
			c := &conn{hub: h, in: buf, lent: &buf}
			c.pinged.Store(true)
			c.takeFrames()
			if !bytes.Equal(c.in, tc.left) {
				t.Errorf("left: % x, want % x", c.in, tc.left)
			}
			if (c.lent == nil) != (len(tc.left) == 0) {
				t.Errorf("buffer kept: %v", c.lent != nil)
			}
			if alive := !c.pinged.Load(); alive != tc.alive {
				t.Errorf("counts as a sign of life: %v", alive)
			}
		})
	}
}

// An idle connection moves to a new goroutine with its pong, and is served as before.
func TestConnectionGoesOnAfterAPong(t *testing.T) {
	c := newCluster(t, 1, Limits{PingAfter: 200 * time.Millisecond, PingTimeout: 5 * time.Second, GapTimeout: 200 * time.Millisecond})
	a, b := connect(t, c.nodes[0], "user=a"), connect(t, c.nodes[0], "user=b")
	a.join("r")
	b.join("r")
	h := c.nodes[0].hub
	// Nothing is said, so that what is read can only be pongs.
	lastRead := func() int64 {
		first := h.clock.Load()
		h.eachConn(func(c *conn) { first = min(first, c.lastRead.Load()) })
		return first
	}
	for range 2 {
		begun := h.clock.Load()
		eventually(t, "two pongs of each", func() bool { return lastRead() > begun+int64(300*time.Millisecond) })
		a.send(fmt.Sprintf(`{"type":"signal","to":%q,"data":1}`, b.peer))
		if m := b.expect("signal"); m.from() != a.peer {
			t.Fatalf("signal: %s", m.raw)
		}
	}
}
