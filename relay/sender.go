package relay

import (
	"net"
	"sync"
	"time"
)

const (
	// maxPending bounds what waits for a client that reads slowly, in bytes; what does not fit is dropped.
	maxPending = 256 << 10
	// writePiece is written under one deadline, in bytes.
	writePiece = 32 << 10
	// keepBuffer is the largest buffer a sender keeps for later.
	keepBuffer = 16 << 10
)

// sender writes to a connection of the net package from a goroutine of its own, which the first message begins: all that waits goes
// out together. Its methods but close never wait.
type sender struct {
	conn     net.Conn
	patience time.Duration // for one piece
	single   bool          // a message a write
	run      func(func())  // starts the goroutine

	mu       sync.Mutex
	pending  []byte    // written, not yet taken by the goroutine
	spare    []byte    // its last buffer, for the next turn
	writing  bool      // there is a goroutine
	finished bool      // it ends when nothing is pending
	endBy    time.Time // finished: when it ends in any case
	wake     chan struct{}
	written  chan struct{} // closed when it has ended
}

func newSender(conn net.Conn, patience time.Duration, single bool, run func(func())) *sender {
	return &sender{conn: conn, patience: patience, single: single, run: run, wake: make(chan struct{}, 1), written: make(chan struct{})}
}

// Queue keeps a copy of b to be sent, unless more than most bytes would wait then.
func (o *sender) Queue(b []byte, most int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending)+len(b) > most {
		return false
	}
	if !o.finished {
		o.pending = append(o.pending, b...)
	}
	return true
}

// Flush has the goroutine send what is queued.
func (o *sender) Flush() {
	o.mu.Lock()
	if !o.writing && !o.finished {
		o.writing = true
		o.run(o.write)
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *sender) write() {
	defer close(o.written)
	for range o.wake {
		for {
			o.mu.Lock()
			b := o.pending
			o.pending, o.spare = o.spare[:0], nil
			over := o.finished && len(b) == 0
			o.mu.Unlock()
			if over {
				return
			}
			if len(b) == 0 {
				o.giveBack(b)
				break
			}
			if !o.put(b) {
				o.conn.Close()
				return
			}
			o.giveBack(b)
		}
	}
}

// put writes b in pieces. A client that does not take one of them for so long is gone, and the reader sees the connection
// close; one that takes what waits slowly only loses what does not fit behind it.
func (o *sender) put(b []byte) bool {
	for len(b) > 0 {
		piece := b[:min(len(b), writePiece)]
		if size, err := frameSize(b); err == nil && size > 0 && o.single {
			piece = b[:min(len(b), size)]
		}
		by := time.Now().Add(o.patience)
		o.mu.Lock()
		if o.finished {
			by = o.endBy
		}
		o.mu.Unlock()
		o.conn.SetWriteDeadline(by)
		if _, err := o.conn.Write(piece); err != nil {
			return false
		}
		b = b[len(piece):]
	}
	return true
}

// giveBack keeps a buffer for the next turn, if it is not one that only a burst needed.
func (o *sender) giveBack(b []byte) {
	if cap(b) > keepBuffer {
		return
	}
	o.mu.Lock()
	o.spare = b[:0]
	o.mu.Unlock()
}

// Shutdown makes the reader see the end of the connection.
func (o *sender) Shutdown() { o.conn.Close() }

// Close lets the goroutine send what is queued and waits for it. It is called by the reader when it has ended.
func (o *sender) Close() {
	o.mu.Lock()
	o.finished, o.endBy = true, time.Now().Add(o.patience)
	writing := o.writing
	o.mu.Unlock()
	if writing {
		select {
		case o.wake <- struct{}{}:
		default:
		}
		<-o.written
	}
	o.conn.Close()
}
