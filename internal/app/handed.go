package app

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// Handed are sockets that a supervisor has bound for the one port and handed over. Either may be missing, and is then bound
// here, on the other's port.
type Handed struct {
	TCP *net.TCPListener
	UDP *net.UDPConn
}

// errHanded says that the sockets handed over do not make one port.
var errHanded = errors.New("sockets handed over")

// TakeSockets makes the sockets of the one port from files, which it closes in any case.
func TakeSockets(files []*os.File) (Handed, error) {
	var h Handed
	var err error
	for _, f := range files {
		if err == nil {
			err = h.take(f)
		}
		_ = f.Close() // what was taken is a duplicate
	}
	if err == nil && h.TCP != nil && h.UDP != nil {
		if tcp, udp := socketAddr(h.TCP.Addr()), socketAddr(h.UDP.LocalAddr()); tcp != udp {
			err = fmt.Errorf("%w: TCP is on %v and UDP on %v; give both the same address and port", errHanded, tcp, udp)
		}
	}
	if err != nil {
		return Handed{}, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *Handed) take(f *os.File) error {
	const remedy = "the socket unit is to have one ListenStream= and one ListenDatagram= with the same port"
	if l, err := net.FileListener(f); err == nil {
		tcp, ok := l.(*net.TCPListener)
		if !ok || h.TCP != nil {
			_ = l.Close()
			return fmt.Errorf("%w: %s %s is one too many; %s", errHanded, l.Addr().Network(), l.Addr(), remedy)
		}
		h.TCP = tcp
		return nil
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return fmt.Errorf("%w: %s is neither a TCP listener nor a UDP socket; %s", errHanded, f.Name(), remedy)
	}
	udp, ok := c.(*net.UDPConn)
	if !ok || h.UDP != nil {
		_ = c.Close()
		return fmt.Errorf("%w: %s %s is one too many; %s", errHanded, c.LocalAddr().Network(), c.LocalAddr(), remedy)
	}
	h.UDP = udp
	return nil
}

func (h Handed) empty() bool { return h.TCP == nil && h.UDP == nil }

// addr is the address of the one port.
func (h Handed) addr() netip.AddrPort {
	if h.TCP != nil {
		return socketAddr(h.TCP.Addr())
	}
	return socketAddr(h.UDP.LocalAddr())
}

func (h Handed) close() error {
	var errs []error
	if h.TCP != nil {
		errs = append(errs, h.TCP.Close())
	}
	if h.UDP != nil {
		errs = append(errs, h.UDP.Close())
	}
	return errors.Join(errs...)
}

// socketAddr is the address and port of a TCP or UDP socket.
func socketAddr(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
