package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// peer is a client of callbox.v1 in one room that does as little as it may: what a load costs is to be the server's. Those that
// have to come back are of package signal/client.
type peer struct {
	ws    *socket
	id    string
	room  string
	token string

	// owned by the reader
	handled, acked uint64
	buf            []byte

	heard  func(data []byte) // called by the reader for every signal; data is the whole message
	failed atomic.Pointer[string]
	prefix []byte // of a signal to other
	done   chan struct{}
}

// message has the fields of the server's messages that are looked at.
type message struct {
	Type    string          `json:"type"`
	Seq     uint64          `json:"seq"`
	Peer    json.RawMessage `json:"peer"`
	Room    string          `json:"room"`
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Reason  string          `json:"reason"`
}

// connect says hello and joins the room.
// Nothing reads the connection afterwards until serve runs.
func (p *peer) connect(ctx context.Context, addr string) error {
	ws, err := dialSocket(ctx, addr, p.token)
	if err != nil {
		return err
	}
	p.ws = ws
	_ = ws.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if err := p.enter(); err != nil {
		ws.close()
		return fmt.Errorf("%s: %w", addr, err)
	}
	_ = ws.conn.SetReadDeadline(time.Time{})
	return nil
}

func (p *peer) enter() error {
	if err := p.ws.write(opText, []byte(`{"type":"hello"}`)); err != nil {
		return err
	}
	welcome, err := p.await("welcome")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(welcome.Peer, &p.id); err != nil {
		return err
	}
	if p.room == "" {
		return p.acknowledge()
	}
	if err := p.ws.write(opText, fmt.Appendf(nil, `{"type":"join","room":%q}`, p.room)); err != nil {
		return err
	}
	if _, err := p.await("joined"); err != nil {
		return err
	}
	return p.acknowledge()
}

func (p *peer) await(kind string) (message, error) {
	for {
		b, err := p.next()
		if err != nil {
			return message{}, err
		}
		var m message
		if err := json.Unmarshal(b, &m); err != nil {
			return message{}, err
		}
		switch m.Type {
		case kind:
			return m, nil
		case "error":
			return message{}, fmt.Errorf("%s: %s", m.Code, m.Message)
		}
	}
}

// next reads a message and keeps count.
func (p *peer) next() ([]byte, error) {
	b, err := p.ws.read(p.buf)
	if err != nil {
		return nil, err
	}
	if cap(b) <= 4096 {
		p.buf = b[:0]
	}
	if seq, ok := sequence(b); ok {
		p.handled = seq
	}
	return b, nil
}

// sequence finds the number of a message; the server writes it second.
func sequence(b []byte) (uint64, bool) {
	head := b[:min(len(b), 64)]
	i := bytes.Index(head, []byte(`,"seq":`))
	if i < 0 {
		return 0, false
	}
	n, found := uint64(0), false
	for _, c := range head[i+7:] {
		if c < '0' || c > '9' {
			break
		}
		n, found = n*10+uint64(c-'0'), true
	}
	return n, found
}

func (p *peer) acknowledge() error {
	if p.acked == p.handled {
		return nil
	}
	p.acked = p.handled
	return p.ws.write(opText, fmt.Appendf(nil, `{"type":"ack","seq":%d}`, p.handled))
}

// serve reads in a goroutine until the connection ends; stop waits for it.
func (p *peer) serve() {
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		quiet := false
		for {
			b, err := p.next()
			if err != nil {
				p.fault(err.Error())
				return
			}
			switch {
			case bytes.HasPrefix(b, []byte(`{"type":"signal"`)):
				if p.heard != nil {
					p.heard(b)
				}
			case bytes.HasPrefix(b, []byte(`{"type":"undeliverable"`)), bytes.HasPrefix(b, []byte(`{"type":"error"`)):
				p.fault(string(b))
			default: // presence: rare, and an idle client must not leave it open
				quiet = true
			}
			if quiet || p.handled-p.acked >= 32 {
				quiet = false
				if err := p.acknowledge(); err != nil {
					p.fault(err.Error())
					return
				}
			}
		}
	}()
}

func (p *peer) fault(text string) { p.failed.CompareAndSwap(nil, &text) }

// err is what went wrong since serve.
func (p *peer) err() error {
	if text := p.failed.Load(); text != nil {
		return errors.New(*text)
	}
	return nil
}

func (p *peer) stop() {
	p.ws.close()
	if p.done != nil {
		<-p.done
	}
}

// aim prepares signals to another peer.
func (p *peer) aim(other *peer) {
	p.prefix = fmt.Appendf(nil, `{"type":"signal","to":%q,"data":`, other.id)
}

// signal sends JSON to the peer aimed at.
func (p *peer) signal(data []byte) error {
	b := make([]byte, 0, len(p.prefix)+len(data)+1)
	return p.ws.write(opText, append(append(append(b, p.prefix...), data...), '}'))
}

// payload is a JSON string of n bytes, quotes included.
func payload(n int) []byte {
	b := bytes.Repeat([]byte{'x'}, n)
	b[0], b[n-1] = '"', '"'
	return b
}
