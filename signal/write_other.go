//go:build !unix

package signal

import (
	"errors"
	"net"
	"syscall"
)

// rawConn: sockets here cannot be tried without blocking.
func rawConn(net.Conn) syscall.RawConn { return nil }

type attempt struct{}

func (attempt) write(syscall.RawConn, []byte) (int, error) {
	return 0, errors.ErrUnsupported
}
