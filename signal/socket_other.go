//go:build !unix

package signal

import (
	"errors"
	"net"
)

// socket is not there: the runtime's own reading and writing is used.
type socket struct{}

func newSocket(net.Conn, *bufferPool) *socket { return nil }

func (*socket) fill() (*[]byte, error)  { return nil, errors.ErrUnsupported }
func (*socket) try([]byte) (int, error) { return 0, errors.ErrUnsupported }
