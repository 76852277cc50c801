//go:build !linux

package udp

import (
	"net"
	"net/netip"
	"time"
)

// Loop is not to be had on this system.
type Loop struct{}

// NewLoop fails.
func NewLoop(*Outbox, func(time.Time), func()) (*Loop, error) { return nil, ErrUnsupported }

// Run returns at once.
func (l *Loop) Run() {}

// Busy is none.
func (l *Loop) Busy() time.Duration { return 0 }

// Gather fails.
func (c *Conn) Gather(bool) error { return ErrUnsupported }

// Close does nothing.
func (l *Loop) Close() {}

// Listen fails.
func (l *Loop) Listen(netip.AddrPort, Options) (*Conn, error) { return nil, ErrUnsupported }

// Loop is nil.
func (c *Conn) Loop() *Loop { return nil }

// Start fails.
func (c *Conn) Start(func(*Packet)) error { return ErrUnsupported }

// TCP is not to be had either.
type TCP struct{}

// Take fails.
func (l *Loop) Take(*net.TCPConn) (*TCP, error) { return nil, ErrUnsupported }

// Start fails.
func (t *TCP) Start(Service) error { return ErrUnsupported }

// Queue has no room.
func (t *TCP) Queue([]byte, int) bool { return false }

// Queued is nothing.
func (t *TCP) Queued() int { return 0 }

// Flush does nothing.
func (t *TCP) Flush() {}

// Shutdown does nothing.
func (t *TCP) Shutdown() {}

// Close does nothing.
func (t *TCP) Close() {}
