package udp

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Loop reads many sockets from one goroutine, around an epoll of its own: what is ready is read in batches and handed to the sockets'
// handlers one by one, and what they put into the loop's outbox is sent before the loop waits again. Handlers of one loop never run at
// the same time.
type Loop struct {
	epoll, event int // descriptors; event ends the wait
	out          *Outbox
	begin        func(now time.Time)
	end          func()
	gso, gro     bool // what the kernel can do
	closed       atomic.Bool

	mu      sync.Mutex // no other lock is taken under it
	members []*looped  // by what epoll says of them
	ages    []int32    // of each place, so that news of a socket that was there before is known
	free    []int32
	over    bool // Run has ended: nothing can be added

	// Owned by Run.
	ready  []unix.EpollEvent
	in     headers
	slots  [][]byte
	used   int    // slots with packets that the outbox may point into
	joined []byte // packets cut out of joined ones, each with room before and behind
	taken  int    // of joined
	coded  []byte // what a connection's decoder is given
	full   bool   // the last round has left packets unread, so more need not gather
	packet Packet
	pace   pace
}

const (
	joinedSlot = 64 << 10
	// slotShift keeps the beginnings of slots from meeting in the same lines of the processor's cache.
	slotShift = 2 << 10
	// restTime is how long a loop rests after an error of a socket, such as one for want of memory.
	restTime = 10 * time.Millisecond
	// readMost is how many datagrams of one socket are taken before the others have their turn.
	readMost   = 32
	eventPlace = -1
	// yieldEvery is how often a busy loop goes through Go's scheduler. To the runtime's monitor, a goroutine that has not done so for 10 ms
	// hangs in one long system call: it would take the processor away every 20 us, and be woken for each. To yield wakes a thread too.
	yieldEvery = 5 * time.Millisecond
)

// NewLoop makes a loop that sends what is in out. begin is called before the handlers of what one wait brought, end after them and
// before the sending.
func NewLoop(out *Outbox, begin func(now time.Time), end func()) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: eventPlace})
		if err != nil {
			unix.Close(event)
		}
	}
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{epoll: epoll, event: event, out: out, begin: begin, end: end, ready: make([]unix.EpollEvent, outboxSize), coded: make([]byte, streamRead)}
	l.gso, l.gro = segmentation()
	size := Headroom + streamRead
	if l.gro {
		size = Headroom + joinedSlot + slotShift
		l.joined = make([]byte, 2*joinedSlot)
	}
	memory := make([]byte, outboxSize*size)
	for i := range outboxSize {
		slot := memory[i*size : (i+1)*size : (i+1)*size]
		l.slots = append(l.slots, slot)
		l.in.bind(i, &slot[Headroom], min(size-Headroom, joinedSlot))
	}
	return l, nil
}

// segmentation asks the kernel whether it cuts and joins datagrams.
func segmentation() (gso, gro bool) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, false
	}
	defer unix.Close(fd)
	_, err = unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	return err == nil, unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
}

// Run serves the loop's sockets until Close. It is called once.
func (l *Loop) Run() {
	var yielded time.Time
	for !l.closed.Load() {
		n := l.await()
		start := time.Now()
		l.begin(start)
		l.pace.packets = 0
		for _, e := range l.ready[:n] {
			if s := l.memberAt(e); s != nil {
				s.ready(e.Events)
			}
		}
		l.end()
		l.flush()
		done := time.Now()
		l.pace.did(start, done)
		if done.Sub(yielded) > yieldEvery {
			yielded = done
			runtime.Gosched()
		}
	}
	l.mu.Lock()
	l.over = true
	list := slices.Clone(l.members)
	l.mu.Unlock()
	for _, s := range list {
		if s != nil {
			s.over()
		}
	}
	unix.Close(l.epoll)
	unix.Close(l.event)
}

// Close makes Run return, and closes the sockets that are still open then.
func (l *Loop) Close() {
	l.mu.Lock() // which Run takes before it closes event
	defer l.mu.Unlock()
	if !l.closed.Swap(true) {
		// An eventfd takes a number of eight bytes. It has room for this one.
		_, _ = unix.Write(l.event, []byte{1, 1, 1, 1, 1, 1, 1, 0})
	}
}

// pauseTime is how long a busy loop lets packets gather before it looks again. The kernel's timers may add as much again.
var pauseTime = unix.Timespec{Nsec: 50_000} // does not change

// await returns how many sockets are ready. To be woken costs more than a packet, so a loop that is busy lets more of them gather.
func (l *Loop) await() int {
	n := l.wait(-1)
	if l.pace.fast && !l.full {
		pause := pauseTime
		_ = unix.Nanosleep(&pause, nil) // a signal ends it early, which is as good
		n = l.wait(0)
	}
	l.full = false
	return n
}

// Busy is how long the loop has worked and not waited, ever. It is for the loop's own goroutine.
func (l *Loop) Busy() time.Duration { return l.pace.busy }

// wait returns how many sockets are ready. Milliseconds as of epoll_wait.
func (l *Loop) wait(milliseconds int) int {
	for {
		n, err := unix.EpollWait(l.epoll, l.ready, milliseconds)
		if err == nil {
			return n
		}
		if err != unix.EINTR {
			time.Sleep(restTime) // out of memory at most: the arguments are right
		}
	}
}

func (l *Loop) flush() {
	l.out.Flush()
	l.used, l.taken = 0, 0
}

// read hands what has come to a socket to its handler.
func (l *Loop) read(c *Conn, handle func(*Packet)) {
	if l.used == len(l.slots) {
		l.flush()
	}
	first := l.used
	if !c.sys.looped.acquire() {
		return
	}
	n, errno := l.in.receive(uintptr(c.sys.looped.fd), first, min(len(l.slots)-first, readMost))
	c.sys.looped.release()
	if errno != 0 {
		if errno == syscall.ENOMEM || errno == syscall.ENOBUFS {
			time.Sleep(restTime)
		}
		return
	}
	l.used += n
	l.pace.packets += n
	l.full = l.full || n == readMost
	for i := first; i < first+n; i++ {
		l.take(c, i, handle)
	}
}

// take hands one message to the handler, in pieces if the kernel has joined it.
func (l *Loop) take(c *Conn, i int, handle func(*Packet)) {
	m := &l.in.msgs[i]
	size, slot, p := int(m.Len), l.slots[i], &l.packet
	local, segment := fromControl(l.in.ctrls[i][:m.Hdr.Controllen])
	peer := fromSockaddr(&l.in.names[i])
	p.Peer, p.Local = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), local.Unmap()
	if segment == 0 || segment >= size {
		if size > MaxDatagram || m.Hdr.Flags&unix.MSG_TRUNC != 0 {
			c.tooLong.Add(1)
			return
		}
		p.slot, p.Data = slot, slot[Headroom:Headroom+size]
		handle(p)
		return
	}
	for data := slot[Headroom : Headroom+size]; len(data) > 0; {
		n := min(segment, len(data))
		if n > MaxDatagram {
			c.tooLong.Add(1)
		} else {
			p.slot = l.piece(Headroom + n + tailroom)
			p.Data = p.slot[Headroom : Headroom+n]
			copy(p.Data, data)
			handle(p)
		}
		data = data[n:]
	}
}

// piece lends memory for one packet until the next flush.
func (l *Loop) piece(n int) []byte {
	if l.taken+n > len(l.joined) {
		l.out.Flush() // what it points into may be used again, but for the slot being cut up
		l.taken = 0
	}
	b := l.joined[l.taken : l.taken+n : l.taken+n]
	l.taken += n
	return b
}

// memberAt finds the socket of an event; nil: it has gone.
func (l *Loop) memberAt(e unix.EpollEvent) *looped {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Fd == eventPlace || l.ages[e.Fd] != e.Pad {
		return nil
	}
	return l.members[e.Fd]
}

// Listen opens a socket of the loop, as the package's Listen does. Nothing is read from it before Start.
func (l *Loop) Listen(addr netip.AddrPort, o Options) (*Conn, error) {
	a := addr.Addr()
	six := !a.Unmap().Is4()
	c, err := l.listen(addr, six, o)
	if err != nil && six && a.IsUnspecified() && !o.OneFamily {
		if four, errFour := l.listen(netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()), false, o); errFour == nil {
			return four, nil // a host without IPv6
		}
	}
	return c, err
}

func (l *Loop) listen(addr netip.AddrPort, six bool, o Options) (_ *Conn, err error) {
	family := unix.AF_INET
	if six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	set := func(level, option, value int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, value))
		}
	}
	if six && addr.Addr().IsUnspecified() {
		only := 0
		if o.OneFamily {
			only = 1
		}
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if o.ReusePort {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	switch {
	case o.TellLocal && six:
		set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	case o.TellLocal:
		set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if l.gro {
		set(unix.SOL_UDP, unix.UDP_GRO, 1)
	}
	if err != nil {
		return nil, err
	}
	port := addr.Port()
	if err := l.bind(fd, addr, six); err != nil {
		return nil, err
	}
	if port == 0 {
		name, err := unix.Getsockname(fd)
		if err != nil {
			return nil, os.NewSyscallError("getsockname", err)
		}
		switch name := name.(type) {
		case *unix.SockaddrInet4:
			port = uint16(name.Port)
		case *unix.SockaddrInet6:
			port = uint16(name.Port)
		}
	}
	c := &Conn{local: netip.AddrPortFrom(addr.Addr().Unmap(), port), tooLong: o.TooLong}
	if c.tooLong == nil {
		c.tooLong = new(atomic.Uint64)
	}
	c.sys.six = six
	c.sys.looped.fd, c.sys.looped.loop, c.sys.looped.place = fd, l, noPlace
	c.sys.looped.whole.Store(!l.gso)
	if o.ReceiveBuffer > 0 {
		c.enlarge(o.ReceiveBuffer)
	}
	return c, nil
}

func (l *Loop) bind(fd int, addr netip.AddrPort, six bool) error {
	if zone := addr.Addr().Zone(); zone != "" {
		if link, err := net.InterfaceByName(zone); err == nil {
			addr = netip.AddrPortFrom(addr.Addr().WithZone(strconv.Itoa(link.Index)), addr.Port())
		}
	}
	var name unix.RawSockaddrInet6
	size := toSockaddr(&name, addr, six)
	_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(size))
	if errno != 0 {
		return os.NewSyscallError("bind", errno)
	}
	return nil
}
