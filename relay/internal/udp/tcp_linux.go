package udp

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TCP is a connection that a loop has taken over. What comes in is handled on the loop's goroutine; what goes out is written by
// whoever flushes it, as far as the kernel takes it at once, and else by the loop when it takes more.
type TCP struct {
	looped looped
	over   atomic.Bool // nothing is read any more

	// Owned by the loop.
	service Service
	rest    []byte // read and not yet handled
	fresh   bool   // what came before Start has not been handled

	mu      sync.Mutex // looped.loop.mu is taken under it
	pending []byte     // queued and not yet written
	spare   []byte     // the memory of what was written last
	writing bool       // somebody is at it
	waiting bool       // the loop goes on when the kernel has room
	stuck   *time.Timer
	until   time.Time // stuck looks then
	kernel  int       // what the client had not acknowledged when that was decided
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

// Start begins to read. It is called once; after an error nothing of the service is called.
func (t *TCP) Start(s Service) error {
	t.service = s
	events := uint32(unix.EPOLLIN)
	if len(s.First) > 0 || s.Through != nil {
		t.fresh, t.waiting = true, true
		events |= unix.EPOLLOUT // which holds from the beginning, so that the loop comes at once
	}
	return t.looped.join(t.ready, t.end, events)
}

// ready is called by the loop.
func (t *TCP) ready(events uint32) {
	ok := !t.fresh || t.begin()
	if events&unix.EPOLLOUT != 0 {
		t.more()
	}
	if !ok || events&^unix.EPOLLOUT != 0 && !t.read() {
		t.end()
	}
}

// end is the end of reading. The descriptor stays for what is still to be sent.
func (t *TCP) end() {
	l := t.looped.loop
	l.flush() // what came last leaves before anybody hears of the end and closes what it leaves from
	l.mu.Lock()
	if t.looped.place != noPlace {
		// Nobody is told of the socket any more; the only error is that it is not there.
		_ = l.control(unix.EPOLL_CTL_DEL, &t.looped, 0)
		l.forget(&t.looped)
	}
	l.mu.Unlock()
	if f := t.service.Ended; f != nil {
		t.service.Ended = nil
		f()
	}
}

// begin handles what came before Start. It reports false at the end, as read and its parts do.
func (t *TCP) begin() bool {
	t.fresh = false
	for len(t.service.First) > 0 {
		slot := t.slot()
		n := copy(slot[len(t.rest):], t.service.First)
		t.service.First = t.service.First[n:]
		if !t.take(slot, n) {
			return false
		}
	}
	t.service.First = nil
	return t.service.Through == nil || t.decode(nil)
}

// read handles what has come.
func (t *TCP) read() bool {
	if t.over.Load() {
		return false
	}
	l := t.looped.loop
	var slot []byte
	to := l.coded
	if t.service.Through == nil {
		slot = t.slot()
		to = slot[len(t.rest):]
	}
	if !t.looped.acquire() {
		return false
	}
	n, errno := recv(t.looped.fd, to)
	t.looped.release()
	switch {
	case errno == syscall.EAGAIN:
		return true
	case errno != 0 || n == 0:
		return false
	}
	l.pace.packets += 1 + n/segment
	l.full = l.full || n == len(to)
	if t.service.Through != nil {
		return t.decode(to[:n])
	}
	return t.take(slot, n)
}

// decode handles what the decoder makes of b.
func (t *TCP) decode(b []byte) bool {
	t.service.Through.Feed(b)
	for {
		slot := t.slot()
		n, err := t.service.Through.Read(slot[len(t.rest):])
		switch {
		case n > 0: // an error beside it comes again
			if !t.take(slot, n) {
				return false
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return true
		case err != nil:
			return false
		}
	}
}

// slot is the loop's next memory, with room for the rest and what comes behind it.
func (t *TCP) slot() []byte {
	l := t.looped.loop
	if l.used == len(l.slots) {
		l.flush()
	}
	return l.slots[l.used][Headroom : Headroom+streamRead]
}

// take hands the rest, and the n bytes behind its place in the slot, to the handler.
func (t *TCP) take(slot []byte, n int) bool {
	t.looped.loop.used++
	kept := copy(slot, t.rest)
	rest, ok := t.service.Handle(slot[:kept+n])
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

// Queued is how many bytes wait.
func (t *TCP) Queued() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending)
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
	// When it is over, nobody waits for the client any more.
	if (progress || t.stuck == nil) && !t.over.Load() {
		t.watch(unacknowledged(t.looped.fd))
	}
}

// watch looks at the client again when patience is over; the caller holds mu.
func (t *TCP) watch(left int) {
	t.kernel, t.until = left, time.Now().Add(t.service.Patience)
	if t.stuck == nil {
		t.stuck = time.AfterFunc(t.service.Patience, t.look)
	} else {
		t.stuck.Reset(t.service.Patience)
	}
}

// look shuts the connection down if its client has taken nothing. The kernel says that there is room only when much of its memory is
// free, which may take a client longer that takes a little all the time.
func (t *TCP) look() {
	if !t.looped.acquire() {
		return
	}
	defer t.looped.release()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stuck == nil || time.Now().Before(t.until) {
		return // it had room at this moment
	}
	if left := unacknowledged(t.looped.fd); left < t.kernel {
		t.watch(left)
	} else {
		t.shutdown()
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

// Shutdown ends the reading: the loop hears of it, and the service is told.
func (t *TCP) Shutdown() {
	if t.looped.acquire() {
		t.shutdown()
		t.looped.release()
	}
}

func (t *TCP) shutdown() {
	t.over.Store(true)
	// The only error is that the other end was faster.
	_ = unix.Shutdown(t.looped.fd, unix.SHUT_RD)
}

// Close sends what the kernel takes at once and closes the connection. It is called after ended, or after an error of Start.
func (t *TCP) Close() {
	t.over.Store(true)
	t.mu.Lock()
	t.calm()
	t.waiting = false // there may be room that the loop does not tell of any more
	t.mu.Unlock()
	t.Flush()
	// Who closes twice has closed.
	_ = t.looped.leave()
}

// unacknowledged is how much of what was written the other end has not acknowledged.
func unacknowledged(fd int) int {
	// The only error is a connection that has none.
	n, _ := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return n
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
