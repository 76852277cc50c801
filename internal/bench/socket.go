package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// socket is a WebSocket client (RFC 6455) that costs as little as it can, so
// that what is measured is the server. Frames are masked with a key of zeros:
// a load generator hides nothing from proxies.
type socket struct {
	conn net.Conn
	r    *bufio.Reader // owned by the reader

	mu  sync.Mutex
	buf []byte // guarded by mu; of the last frame written, used again
}

const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

var errClosedByServer = errors.New("closed by the server")

// dialSocket connects to /ws as callbox.v1 with a room token.
func dialSocket(ctx context.Context, addr, token string) (*socket, error) {
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 16)
	rand.Read(key) // never fails
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: callbox.v1, token.%s\r\n\r\n", addr, base64.StdEncoding.EncodeToString(key), token)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s := &socket{conn: conn, r: bufio.NewReaderSize(conn, 2048)}
	response, err := http.ReadResponse(s.r, nil)
	if err == nil && response.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("%s from %s", response.Status, addr)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return s, nil
}

func (s *socket) write(op byte, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := append(s.buf[:0], 0x80|op)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(append(b, 0, 0, 0, 0), payload...)
	s.buf = b
	if cap(b) > 4096 {
		s.buf = nil
	}
	_, err := s.conn.Write(b)
	return err
}

// read returns the next text message; it is good until the next call when buf
// is large enough to hold it. Pings are answered here.
func (s *socket) read(buf []byte) ([]byte, error) {
	for {
		var head [10]byte
		if _, err := io.ReadFull(s.r, head[:2]); err != nil {
			return nil, err
		}
		op, n := head[0]&0x0f, uint64(head[1]&0x7f)
		switch n {
		case 126:
			if _, err := io.ReadFull(s.r, head[2:4]); err != nil {
				return nil, err
			}
			n = uint64(binary.BigEndian.Uint16(head[2:]))
		case 127:
			if _, err := io.ReadFull(s.r, head[2:10]); err != nil {
				return nil, err
			}
			n = binary.BigEndian.Uint64(head[2:])
		}
		if n > 4<<20 {
			return nil, fmt.Errorf("frame of %d bytes", n)
		}
		if uint64(cap(buf)) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := io.ReadFull(s.r, buf); err != nil {
			return nil, err
		}
		switch op {
		case opText:
			return buf, nil
		case opPing:
			if err := s.write(opPong, buf); err != nil {
				return nil, err
			}
		case opClose:
			if n >= 2 {
				return nil, fmt.Errorf("%w: %d %s", errClosedByServer, binary.BigEndian.Uint16(buf), buf[2:])
			}
			return nil, errClosedByServer
		}
	}
}

func (s *socket) close() { _ = s.conn.Close() }
