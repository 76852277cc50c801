package udp

import (
	"errors"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvmmsg and sendmmsg, called through the runtime's poller: a whole batch a system call, and no allocation.

// headers is the kernel's view of a batch. The kernel keeps none of the pointers after a call.
type headers struct {
	msgs  [outboxSize]unix.Mmsghdr
	iovs  [outboxSize]unix.Iovec
	names [outboxSize]unix.RawSockaddrInet6 // large enough for an IPv4 address too
	ctrls [outboxSize][controlSize]byte
}

// bind makes message i one buffer with its name and control data.
func (h *headers) bind(i int, buffer *byte, size int) {
	h.iovs[i].Base = buffer
	h.iovs[i].SetLen(size)
	m := &h.msgs[i].Hdr
	m.Iov = &h.iovs[i]
	m.SetIovlen(1)
	m.Name = (*byte)(unsafe.Pointer(&h.names[i]))
	m.Control = &h.ctrls[i][0]
}

// receive fills messages from one on; it does not wait.
func (h *headers) receive(fd uintptr, from, count int) (int, syscall.Errno) {
	for i := from; i < from+count; i++ {
		h.msgs[i].Hdr.Namelen = unix.SizeofSockaddrInet6
		h.msgs[i].Hdr.SetControllen(controlSize)
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&h.msgs[from])), uintptr(count),
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

type batchSys struct {
	headers headers
	count   int
	errno   syscall.Errno
}

func (s *batchSys) init(b *Batch) {
	for i := range b.slots {
		s.headers.bind(i, &b.slots[i].slot[Headroom], MaxDatagram+tailroom)
	}
}

// connSys is owned by the one reader, except six, which does not change, and looped.
type connSys struct {
	six    bool // an AF_INET6 socket
	looped looped
	raw    syscall.RawConn
	read   func(fd uintptr) bool
	pool   *Pool
	got    *Batch
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
	err := c.control(func(fd uintptr) {
		forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	})
	if err == nil && forced == nil {
		return
	}
	size = min(size, bufferBound())
	_ = c.control(func(fd uintptr) {
		// The kernel has doubled what was asked for (socket(7)). A supervisor that has the privilege may have given more already.
		if got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || got/2 < size {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
	})
}

// bufferBound is the largest receive buffer that takes no privilege, as it was at first.
var bufferBound = sync.OnceValue(func() int {
	text, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		return math.MaxInt32
	}
	bound, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return math.MaxInt32
	}
	return bound
})

// control calls f with the socket's descriptor, unless the socket is closed.
func (c *Conn) control(f func(fd uintptr)) error {
	if c.udp != nil {
		return c.sys.raw.Control(f)
	}
	if !c.sys.looped.acquire() {
		return net.ErrClosed
	}
	defer c.sys.looped.release()
	f(uintptr(c.sys.looped.fd))
	return nil
}

func (c *Conn) close() error {
	if c.udp != nil {
		return c.udp.Close()
	}
	return c.sys.looped.leave()
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
	err := c.control(func(fd uintptr) {
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
	n, errno := b.sys.headers.receive(fd, 0, BatchSize)
	if errno == syscall.EAGAIN {
		c.sys.pool.Put(b)
		return false
	}
	b.sys.count, b.sys.errno = n, errno
	c.sys.got = b
	return true
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
		local, _ := fromControl(h.ctrls[i][:h.msgs[i].Hdr.Controllen])
		b.fill(kept, n, fromSockaddr(&h.names[i]), local)
		kept++
	}
	b.Packets = b.slots[:kept]
}
