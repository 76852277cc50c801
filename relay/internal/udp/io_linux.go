package udp

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvmmsg and sendmmsg, called through the runtime's poller: a whole batch a system call, and no allocation.

// headers is the kernel's view of a batch. The kernel keeps none of the pointers after a call.
type headers struct {
	msgs  [BatchSize]unix.Mmsghdr
	iovs  [BatchSize]unix.Iovec
	names [BatchSize]unix.RawSockaddrInet6 // large enough for an IPv4 address too
	ctrls [BatchSize][controlSize]byte
}

type batchSys struct {
	headers headers
	count   int
	errno   syscall.Errno
}

func (s *batchSys) init(b *Batch) {
	for i := range s.headers.msgs {
		h := &s.headers
		h.iovs[i].Base = &b.slots[i].slot[Headroom]
		h.iovs[i].SetLen(MaxDatagram + tailroom)
		h.msgs[i].Hdr.Iov = &h.iovs[i]
		h.msgs[i].Hdr.SetIovlen(1)
		h.msgs[i].Hdr.Name = (*byte)(unsafe.Pointer(&h.names[i]))
		h.msgs[i].Hdr.Control = &h.ctrls[i][0]
	}
}

// connSys is owned by the one reader, except six, which does not change.
type connSys struct {
	six  bool // an AF_INET6 socket
	raw  syscall.RawConn
	read func(fd uintptr) bool
	pool *Pool
	got  *Batch
}

func (c *Conn) init(o Options) error {
	raw, err := c.udp.SyscallConn()
	if err != nil {
		return err
	}
	c.sys.raw = raw
	c.sys.read = c.readOnce
	var option error
	err = raw.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			option = os.NewSyscallError("getsockopt", err)
			return
		}
		c.sys.six = domain == unix.AF_INET6
		// The net package turns it on. A relay's peers would choose the address, and a datagram to a subnet's last one is
		// answered by all of it.
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0); err != nil {
			option = os.NewSyscallError("setsockopt", err)
			return
		}
		if !o.TellLocal {
			return
		}
		if c.sys.six {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
		option = os.NewSyscallError("setsockopt", err)
	})
	return errors.Join(err, option)
}

// enlarge asks for a receive buffer; a smaller one than asked for is no fault. Past the kernel's bound it takes a privilege.
func (c *Conn) enlarge(size int) {
	var forced error
	err := c.sys.raw.Control(func(fd uintptr) {
		forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	})
	if err != nil || forced != nil {
		_ = c.udp.SetReadBuffer(size)
	}
}

// ReusePort says whether several sockets can share one address and its load.
const ReusePort = true

func setReusePort(c syscall.RawConn) error {
	var option error
	err := c.Control(func(fd uintptr) {
		option = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, option)
}

// DontFragment says whether SetDontFragment works.
const DontFragment = true

// SetDontFragment asks that the datagrams sent from now on are never fragmented.
func (c *Conn) SetDontFragment(on bool) error {
	mode := unix.IP_PMTUDISC_WANT // the same number for IPv6
	if on {
		mode = unix.IP_PMTUDISC_DO
	}
	var option error
	err := c.sys.raw.Control(func(fd uintptr) {
		if c.sys.six {
			option = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, mode)
		} else {
			option = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode)
		}
	})
	return errors.Join(err, option)
}

// Read waits for datagrams and returns a batch of the pool with them. After an error other than net.ErrClosed the socket can
// be read again.
func (c *Conn) Read(pool *Pool) (*Batch, error) {
	for {
		c.sys.pool, c.sys.got = pool, nil
		if err := c.sys.raw.Read(c.sys.read); err != nil {
			if c.sys.got != nil {
				pool.Put(c.sys.got)
			}
			return nil, err
		}
		b := c.sys.got
		c.sys.got = nil
		if b.sys.errno != 0 {
			err := b.sys.errno
			pool.Put(b)
			return nil, os.NewSyscallError("recvmmsg", err)
		}
		if c.collect(b); len(b.Packets) > 0 {
			return b, nil
		}
		pool.Put(b)
	}
}

// readOnce is called by the poller when the socket may have something. It reports whether the wait is over.
func (c *Conn) readOnce(fd uintptr) bool {
	b := c.sys.pool.get()
	h := &b.sys.headers
	for i := range h.msgs {
		h.msgs[i].Hdr.Namelen = unix.SizeofSockaddrInet6
		h.msgs[i].Hdr.SetControllen(controlSize)
	}
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&h.msgs[0])), BatchSize,
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.sys.pool.Put(b)
			return false
		}
		b.sys.count, b.sys.errno = int(n), errno
		if errno != 0 {
			b.sys.count = 0
		}
		c.sys.got = b
		return true
	}
}

// collect turns what the kernel wrote into packets, leaving out the cut ones.
func (c *Conn) collect(b *Batch) {
	h := &b.sys.headers
	kept := 0
	for i := range b.sys.count {
		n := int(h.msgs[i].Len)
		if n > MaxDatagram || h.msgs[i].Hdr.Flags&unix.MSG_TRUNC != 0 {
			c.tooLong.Add(1)
			continue
		}
		if kept != i {
			// Slots and iovecs stay in step: move the datagram, which happens only behind an oversized one.
			copy(b.slots[kept].slot[Headroom:], b.slots[i].slot[Headroom:Headroom+n])
		}
		b.fill(kept, n, fromSockaddr(&h.names[i]), localOf(h.ctrls[i][:h.msgs[i].Hdr.Controllen]))
		kept++
	}
	b.Packets = b.slots[:kept]
}

type outboxSys struct {
	headers *headers
	write   func(fd uintptr) bool
	next    int // the first header not yet sent
	count   int
	errno   syscall.Errno
}

// send sends one run through one socket. It waits for room in the socket's buffer and skips datagrams the system refuses.
func (o *Outbox) send(c *Conn, run []outgoing) {
	s := &o.sys
	if s.headers == nil {
		s.headers = new(headers)
		s.write = s.writeOnce
	}
	h := s.headers
	for i := range run {
		p := &run[i]
		h.iovs[i].Base = unsafe.SliceData(p.data)
		h.iovs[i].SetLen(len(p.data))
		m := &h.msgs[i].Hdr
		m.Iov = &h.iovs[i]
		m.SetIovlen(1)
		m.Name = (*byte)(unsafe.Pointer(&h.names[i]))
		m.Namelen = toSockaddr(&h.names[i], p.peer, c.sys.six)
		m.Control = nil
		m.SetControllen(0)
		if p.local.IsValid() {
			m.Control = &h.ctrls[i][0]
			m.SetControllen(putLocal(&h.ctrls[i], p.local, c.sys.six))
		}
	}
	s.next, s.count = 0, len(run)
	for s.next < s.count {
		s.errno = 0
		if err := c.sys.raw.Write(s.write); err != nil {
			for range s.count - s.next {
				o.failed(err)
			}
			return
		}
		if s.errno != 0 {
			o.failed(s.errno)
			s.next++
		}
	}
	for i := range run {
		h.iovs[i].Base = nil
	}
}

func (s *outboxSys) writeOnce(fd uintptr) bool {
	for s.next < s.count {
		n, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.headers.msgs[s.next])),
			uintptr(s.count-s.next), unix.MSG_DONTWAIT, 0, 0)
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
