package udp

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// looped is a loop's part of a socket. The descriptor is closed by the last who uses it, so that nobody meets another socket under the
// same number.
type looped struct {
	fd    int
	loop  *Loop // nil: not a loop's socket
	ready func(events uint32)
	over  func()       // the loop has ended
	place int32        // in the loop's list; guarded by its mu
	users atomic.Int64 // and the flags below
	whole atomic.Bool  // the kernel does not cut up what is sent on this socket
}

const (
	isClosing = 1 << 62 // nobody may begin to use it
	isClosed  = 1 << 61 // the descriptor is gone
	noPlace   = -1
)

func (s *looped) acquire() bool {
	if s.users.Add(1)&isClosing != 0 {
		s.release()
		return false
	}
	return true
}

func (s *looped) release() {
	if s.users.Add(-1) == isClosing && s.users.CompareAndSwap(isClosing, isClosing|isClosed) {
		unix.Close(s.fd)
	}
}

// segments says whether runs may be sent as one.
func (s *looped) segments() bool { return s.loop != nil && !s.whole.Load() }

// unsegmented says whether an error may come from sending a run as one: the way to the peer takes no datagrams of that size
// whole, or the device computes no checksums, which will not change.
func (s *looped) unsegmented(errno syscall.Errno) bool {
	if errno == syscall.EIO {
		s.whole.Store(true)
	}
	return errno == syscall.EIO || errno == syscall.EINVAL || errno == syscall.EMSGSIZE
}

// Loop is the loop that the socket is of; nil: none.
func (c *Conn) Loop() *Loop { return c.sys.looped.loop }

// Start makes the loop call handle with each packet that comes, on the loop's goroutine. The packet is valid until handle returns, its
// data until the loop's outbox is flushed. It is called once.
func (c *Conn) Start(handle func(*Packet)) error {
	s := &c.sys.looped
	return s.join(func(uint32) { s.loop.read(c, handle) }, func() { c.Close() }, unix.EPOLLIN)
}

// join makes the loop call ready with what epoll says of the socket, or over when the loop ends.
func (s *looped) join(ready func(events uint32), over func(), events uint32) error {
	l := s.loop
	if !s.acquire() {
		return net.ErrClosed
	}
	defer s.release()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return net.ErrClosed
	}
	s.ready, s.over = ready, over
	if n := len(l.free); n > 0 {
		s.place, l.free = l.free[n-1], l.free[:n-1]
	} else {
		s.place = int32(len(l.members))
		l.members, l.ages = append(l.members, nil), append(l.ages, 0)
	}
	l.members[s.place] = s
	err := l.control(unix.EPOLL_CTL_ADD, s, events)
	if err != nil {
		l.forget(s)
	}
	return err
}

// control tells epoll of a member; the caller holds mu.
func (l *Loop) control(what int, s *looped, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: s.place, Pad: l.ages[s.place]}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, what, s.fd, &e))
}

// forget takes a socket from the list; the caller holds mu.
func (l *Loop) forget(s *looped) {
	if s.place == noPlace {
		return
	}
	l.members[s.place] = nil
	l.ages[s.place]++
	l.free = append(l.free, s.place)
	s.place = noPlace
}

// leave closes the socket. Its handler may be running still, and is not called again.
func (s *looped) leave() error {
	if !s.acquire() {
		return net.ErrClosed
	}
	s.loop.mu.Lock()
	s.loop.forget(s)
	s.loop.mu.Unlock()
	s.users.Or(isClosing)
	s.release()
	return nil
}

// Gather directs what comes to all sockets of a group that shares an address to its first, or spreads it again over all of them.
func (c *Conn) Gather(on bool) error {
	var option error
	err := c.control(func(fd uintptr) {
		if !on {
			option = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0))
			return
		}
		first := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
		option = os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: 1, Filter: &first}))
	})
	return errors.Join(err, option)
}
