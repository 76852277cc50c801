package udp

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TCP is a connection that a loop has taken over. What comes in is handled on the loop's goroutine; what goes out is written by
// whoever flushes it, as far as the kernel takes it at once, and else by the loop when it takes more.
type TCP struct {
	looped  looped
	patient time.Duration
	handle  func([]byte) ([]byte, bool)
	ended   func()

	// Owned by the loop.
	rest  []byte // read and not yet handled
	fresh bool   // rest is what Start was given, and nobody has looked at it

	mu      sync.Mutex // looped.loop.mu is taken under it
	pending []byte     // queued and not yet written
	spare   []byte     // the memory of what was written last
	writing bool       // somebody is at it
	waiting bool       // the loop goes on when the kernel has room
	stuck   *time.Timer
}

const (
	// streamRead is how much of a connection is read before the others have their turn, with what was left of the last time.
	streamRead = 32 << 10
	// segment is how much of a stream counts as a packet.
	segment = 1400
	// keepBuffer is the largest buffer a connection keeps for later.
	keepBuffer = 16 << 10
)

// Take makes a connection one of the loop's. The caller's is closed then; after an error it is as it was.
func (l *Loop) Take(conn *net.TCPConn) (*TCP, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	t := &TCP{}
	var failed error
	err = raw.Control(func(fd uintptr) {
		// A descriptor of its own, because the runtime's epoll would go on to wake for the old one.
		t.looped.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = os.NewSyscallError("fcntl", failed)
	}
	if err != nil {
		return nil, err
	}
	conn.Close()
	t.looped.loop, t.looped.place = l, noPlace
	return t, nil
}

// Start begins to read. handle is called on the loop's goroutine with what has come and was left, first what is in first; it returns
// what it leaves for the next time, and false for an end. What it was given is valid until the loop's outbox is flushed. ended is called
// once, when nothing more comes. A connection that takes nothing of what is queued for as long as patience is shut down. Start is called
// once; after an error nothing is called.
func (t *TCP) Start(first []byte, patience time.Duration, handle func([]byte) (rest []byte, ok bool), ended func()) error {
	t.handle, t.ended, t.patient = handle, ended, patience
	events := uint32(unix.EPOLLIN)
	if t.rest = first; len(first) > 0 {
		t.fresh, t.waiting = true, true
		events |= unix.EPOLLOUT // which holds from the beginning, so that the loop comes at once
	}
	return t.looped.join(t.ready, t.end, events)
}

// ready is called by the loop.
func (t *TCP) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		ok := !t.fresh || t.take(0)
		t.fresh = false
		t.more()
		if !ok {
			t.end()
			return
		}
	}
	if events&^unix.EPOLLOUT != 0 && !t.read() {
		t.end()
	}
}

// end is the end of reading. The descriptor stays for what is still to be sent.
func (t *TCP) end() {
	l := t.looped.loop
	l.mu.Lock()
	if t.looped.place != noPlace {
		// Nobody is told of the socket any more; the only error is that it is not there.
		_ = l.control(unix.EPOLL_CTL_DEL, &t.looped, 0)
		l.forget(&t.looped)
	}
	l.mu.Unlock()
	if f := t.ended; f != nil {
		t.ended = nil
		f()
	}
}

// read handles what has come. It reports false at the end.
func (t *TCP) read() bool {
	l := t.looped.loop
	if l.used == len(l.slots) {
		l.flush()
	}
	slot := l.slots[l.used][Headroom : Headroom+streamRead]
	kept := copy(slot, t.rest)
	if !t.looped.acquire() {
		return false
	}
	n, errno := recv(t.looped.fd, slot[kept:])
	t.looped.release()
	switch {
	case errno == syscall.EAGAIN:
		return true
	case errno != 0 || n == 0:
		return false
	}
	l.pace.packets += 1 + n/segment
	return t.take(n)
}

// take hands the n bytes behind the rest in the loop's next slot to the handler; with n = 0 only the rest.
func (t *TCP) take(n int) bool {
	l := t.looped.loop
	if n == 0 && l.used == len(l.slots) {
		l.flush()
	}
	slot := l.slots[l.used][Headroom : Headroom+streamRead]
	kept := copy(slot, t.rest)
	l.used++
	rest, ok := t.handle(slot[:kept+n])
	switch {
	case len(rest) > 0:
		t.rest = append(t.rest[:0], rest...)
	case cap(t.rest) > keepBuffer/8:
		t.rest = nil
	default:
		t.rest = t.rest[:0]
	}
	return ok && len(rest) < streamRead
}

// Queue keeps a copy of b to be sent, unless more than most bytes would wait then. It never waits.
func (t *TCP) Queue(b []byte, most int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending)+len(b) > most {
		return false
	}
	t.pending = append(t.pending, b...)
	return true
}

// Flush sends what is queued. It never waits.
func (t *TCP) Flush() {
	if !t.looped.acquire() {
		return
	}
	defer t.looped.release()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.writing || t.waiting {
		return
	}
	t.writing = true
	for len(t.pending) > 0 && !t.waiting {
		b := t.pending
		t.pending, t.spare = t.spare[:0], nil
		t.mu.Unlock()
		n, errno := transmit(t.looped.fd, b)
		t.mu.Lock()
		switch {
		case errno == syscall.EAGAIN:
			t.pending = append(b[:copy(b, b[n:])], t.pending...)
			t.wait(n > 0)
		case errno != 0:
			t.pending = nil
			t.shutdown()
		default:
			t.calm()
			if cap(b) <= keepBuffer {
				t.spare = b[:0]
			}
		}
	}
	t.writing = false
}

// wait makes the loop go on when there is room; the caller holds mu.
func (t *TCP) wait(progress bool) {
	t.waiting = true
	t.listen(unix.EPOLLIN | unix.EPOLLOUT)
	switch {
	case t.stuck == nil:
		t.stuck = time.AfterFunc(t.patient, t.Shutdown)
	case progress:
		t.stuck.Reset(t.patient)
	}
}

// more is the loop's word that there is room.
func (t *TCP) more() {
	t.mu.Lock()
	t.waiting = false
	t.mu.Unlock()
	t.Flush()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.waiting {
		t.listen(unix.EPOLLIN)
	}
}

// calm ends the watch over a slow client; the caller holds mu.
func (t *TCP) calm() {
	if t.stuck != nil {
		t.stuck.Stop()
		t.stuck = nil
	}
}

// listen says what epoll is to tell; the caller holds mu.
func (t *TCP) listen(events uint32) {
	l := t.looped.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.looped.place != noPlace {
		// A member's descriptor is there, and it has been accepted before.
		_ = l.control(unix.EPOLL_CTL_MOD, &t.looped, events)
	}
}

// Shutdown ends the connection both ways; the loop hears of it, and ended is called.
func (t *TCP) Shutdown() {
	if t.looped.acquire() {
		t.shutdown()
		t.looped.release()
	}
}

// shutdown's only error is that the other end was faster.
func (t *TCP) shutdown() { _ = unix.Shutdown(t.looped.fd, unix.SHUT_RDWR) }

// Close sends what the kernel takes at once and closes the connection. It is called after ended, or after an error of Start.
func (t *TCP) Close() {
	t.Flush()
	t.mu.Lock()
	t.calm()
	t.mu.Unlock()
	// Who closes twice has closed.
	_ = t.looped.leave()
}

// recv reads what is there.
func recv(fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

// transmit writes as much as the kernel takes and returns how much; the error is about the rest.
func transmit(fd int, b []byte) (sent int, errno syscall.Errno) {
	for sent < len(b) {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[sent])), uintptr(len(b)-sent),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			sent += int(n)
		case syscall.EINTR:
		default:
			return sent, errno
		}
	}
	return sent, 0
}
