//go:build unix

package signal

import (
	"crypto/tls"
	"io"
	"net"
	"syscall"
)

// socket reads and writes a plain socket without a buffer or a deep stack
// while it waits. Its functions for the runtime are made once for a connection.
type socket struct {
	raw   syscall.RawConn
	pool  *bufferPool
	readF func(fd uintptr) bool
	in    *[]byte // lent by pool while there is something in it
	inErr error
	write attempt
}

// attempt is one write that does not wait.
type attempt struct {
	b   []byte
	n   int
	err error
	f   func(fd uintptr) bool
}

// newSocket is nil if nc is not a plain socket.
func newSocket(nc net.Conn, pool *bufferPool) *socket {
	sc, ok := plain(nc).(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw, pool: pool}
	s.readF = s.readOnce
	s.write.f = s.write.once
	return s
}

// plain takes the wrappers off a connection that hand its bytes on as they are. (What a wrapper
// had read ahead was consumed with the HTTP request.) TLS is not such a wrapper.
func plain(nc net.Conn) net.Conn {
	for {
		if _, ok := nc.(interface{ ConnectionState() tls.ConnectionState }); ok {
			return nil
		}
		w, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = w.NetConn()
	}
}

// fill waits until something has come and returns it in a buffer of the pool. One caller at a time.
func (s *socket) fill() (*[]byte, error) {
	s.in, s.inErr = nil, nil
	err := s.raw.Read(s.readF)
	if err == nil {
		err = s.inErr
	}
	in := s.in
	s.in = nil
	if err != nil && in != nil {
		s.pool.put(in)
		in = nil
	}
	return in, err
}

// readOnce holds a buffer only if there is something to read.
func (s *socket) readOnce(fd uintptr) bool {
	buf := s.pool.get()
	for {
		n, err := syscall.Read(int(fd), (*buf)[:cap(*buf)])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			s.pool.put(buf)
			return false // wait
		case err != nil:
			s.inErr = err
		case n == 0:
			s.inErr = io.EOF
		default:
			*buf = (*buf)[:n]
			s.in = buf
			return true
		}
		s.pool.put(buf)
		return true
	}
}

// try writes what the socket takes now.
func (s *socket) try(b []byte) (int, error) {
	a := &s.write
	a.b, a.n, a.err = b, 0, nil
	err := s.raw.Write(a.f)
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
