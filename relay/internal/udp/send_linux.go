package udp

import (
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

type outboxSys struct {
	headers *headers
	counts  [outboxSize]int // of the datagrams in each message
	write   func(fd uintptr) bool

	// What is being sent.
	msgs  []unix.Mmsghdr
	next  int // the first not yet sent
	errno syscall.Errno
}

// send sends the runs of one socket: each as one message that the kernel cuts up where it can, else a message a datagram. It skips what
// the system refuses.
func (o *Outbox) send(c *Conn, runs []int) {
	s := &o.sys
	if s.headers == nil {
		s.headers = new(headers)
		s.write = s.writeOnce
	}
	h := s.headers
	msgs, iovs := 0, 0
	for _, i := range runs {
		r := &o.runs[i]
		joined := r.count > 1 && c.sys.looped.segments()
		for at := r.first; at >= 0; {
			first := iovs
			for ; at >= 0 && (joined || iovs == first); at = o.queue[at].next {
				h.iovs[iovs].Base = unsafe.SliceData(o.queue[at].data)
				h.iovs[iovs].SetLen(len(o.queue[at].data))
				iovs++
			}
			s.counts[msgs] = iovs - first
			m := &h.msgs[msgs].Hdr
			m.Iov = &h.iovs[first]
			m.SetIovlen(iovs - first)
			m.Name = (*byte)(unsafe.Pointer(&h.names[msgs]))
			m.Namelen = toSockaddr(&h.names[msgs], r.peer, c.sys.six)
			control := 0
			if r.local.IsValid() {
				control = putLocal(&h.ctrls[msgs], r.local, c.sys.six)
			}
			if iovs-first > 1 {
				control += putSegment(h.ctrls[msgs][control:], r.size)
			}
			m.Control = nil
			if control > 0 {
				m.Control = &h.ctrls[msgs][0]
			}
			m.SetControllen(control)
			msgs++
		}
	}
	for next := 0; next < msgs; {
		n, err := o.transmit(c, h.msgs[next:msgs])
		if next += n; err == nil {
			continue
		}
		// The first that was not sent is what the error is about; after a lasting one nothing more will be.
		if s.errno != 0 && s.counts[next] > 1 && c.sys.looped.unsegmented(s.errno) {
			o.split(c, &h.msgs[next])
		} else {
			o.failed(s.counts[next], err)
		}
		next++
		if s.errno == 0 {
			for ; next < msgs; next++ {
				o.failed(s.counts[next], err)
			}
		}
	}
	for i := range iovs {
		h.iovs[i].Base = nil
	}
}

// split sends the datagrams of a joined message that the system refused one by one.
func (o *Outbox) split(c *Conn, joined *unix.Mmsghdr) {
	segment := unix.CmsgSpace(2)
	list := make([]unix.Mmsghdr, joined.Hdr.Iovlen)
	for i := range list {
		m := &list[i].Hdr
		*m = joined.Hdr
		m.Iov = (*unix.Iovec)(unsafe.Add(unsafe.Pointer(joined.Hdr.Iov), i*int(unsafe.Sizeof(unix.Iovec{}))))
		m.SetIovlen(1)
		m.SetControllen(int(joined.Hdr.Controllen) - segment)
	}
	for next := 0; next < len(list); {
		n, err := o.transmit(c, list[next:])
		if next += n; err != nil {
			o.failed(1, err)
			next++
		}
	}
}

// transmit sends messages and returns how many. The error is about the one after them, and in s.errno too if it is the system's.
func (o *Outbox) transmit(c *Conn, msgs []unix.Mmsghdr) (int, error) {
	s := &o.sys
	s.msgs, s.next, s.errno = msgs, 0, 0
	var err error
	switch {
	case c.udp != nil:
		err = c.sys.raw.Write(s.write)
	case !c.sys.looped.acquire():
		err = net.ErrClosed
	default:
		fd := c.sys.looped.fd
		if !s.writeOnce(uintptr(fd)) && (!writable(fd) || !s.writeOnce(uintptr(fd))) {
			s.errno = syscall.EAGAIN
		}
		c.sys.looped.release()
	}
	if s.errno != 0 {
		err = os.NewSyscallError("sendmmsg", s.errno)
	}
	s.msgs = nil
	return s.next, err
}

// writeWait is how long a full socket buffer holds up a loop, in milliseconds; what it has no room for then is dropped.
const writeWait = 2

func writable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, writeWait)
	return err == nil && n > 0
}

// writeOnce reports false if the socket has no room.
func (s *outboxSys) writeOnce(fd uintptr) bool {
	for s.next < len(s.msgs) {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.msgs[s.next])),
			uintptr(len(s.msgs)-s.next), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			s.next += int(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			s.errno = errno
			return true
		}
	}
	return true
}
