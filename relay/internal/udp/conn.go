package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
)

// Conn is one bound UDP socket: a socket of the net package, whose reader calls Read, or one of a Loop, which calls what Start was
// given. Read belongs to one goroutine; sending and closing are for any.
type Conn struct {
	udp     *net.UDPConn // nil: a loop's
	local   netip.AddrPort
	tooLong *atomic.Uint64
	sys     connSys
}

// Options say how a socket is opened.
type Options struct {
	ReusePort     bool // share the address with the other sockets of a group
	TellLocal     bool // report the address a datagram came to; needed on wildcard addresses
	OneFamily     bool // an unspecified IPv6 address means IPv6 alone
	ReceiveBuffer int  // bytes asked of the kernel; 0: its default
	// TooLong counts the datagrams dropped because they were longer than MaxDatagram; nil: nobody counts.
	TooLong *atomic.Uint64
}

// Listen opens a socket. An unspecified IPv6 address means both families where the host has IPv6, and IPv4 where not.
func Listen(addr netip.AddrPort, o Options) (*Conn, error) {
	network := "udp6"
	switch {
	case addr.Addr().Unmap().Is4():
		network = "udp4"
	case addr.Addr().IsUnspecified() && !o.OneFamily:
		network = "udp"
	}
	var lc net.ListenConfig
	if o.ReusePort {
		lc.Control = func(_, _ string, c syscall.RawConn) error { return setReusePort(c) }
	}
	pc, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	c, err := Adopt(pc.(*net.UDPConn), o)
	if err != nil {
		pc.Close()
		return nil, fmt.Errorf("socket options of %v: %w", addr, err)
	}
	return c, nil
}

// Adopt makes a Conn of a bound socket; ReusePort and OneFamily are what the socket is already. After an error the socket is
// still the caller's.
func Adopt(conn *net.UDPConn, o Options) (*Conn, error) {
	c := &Conn{udp: conn, tooLong: o.TooLong}
	if c.tooLong == nil {
		c.tooLong = new(atomic.Uint64)
	}
	local := c.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	c.local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	if err := c.init(o); err != nil {
		return nil, err
	}
	if o.ReceiveBuffer > 0 {
		c.enlarge(o.ReceiveBuffer)
	}
	return c, nil
}

// LocalAddr is the bound address; an unspecified IPv6 address also receives IPv4.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// Close closes the socket; a waiting Read returns net.ErrClosed.
func (c *Conn) Close() error { return c.close() }

// ErrUnsupported is a socket feature this system does not have.
var ErrUnsupported = errors.New("not supported by this system")
