//go:build unix

package signal

import (
	"net"
	"syscall"
)

// rawConn gives access to the socket for writing without blocking, if nc is a
// plain socket.
func rawConn(nc net.Conn) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// attempt is one write that does not block. It is kept, so that the function
// handed to the runtime is made once for a connection.
type attempt struct {
	b   []byte
	n   int
	err error
	f   func(fd uintptr) bool
}

// write writes what the socket takes now.
func (a *attempt) write(raw syscall.RawConn, b []byte) (int, error) {
	if a.f == nil {
		a.f = a.once
	}
	a.b, a.n, a.err = b, 0, nil
	err := raw.Write(a.f)
	a.b = nil
	if err == nil {
		err = a.err
	}
	return a.n, err
}

func (a *attempt) once(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), a.b)
		switch err {
		case nil:
			a.n = n
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			a.err = err
		}
		return true // never wait in here
	}
}
