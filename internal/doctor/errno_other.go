//go:build !windows

package doctor

import (
	"errors"
	"syscall"
)

// inUse says that a port belongs to another socket.
func inUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// notAllowed says that this user may not have a port.
func notAllowed(err error) bool { return errors.Is(err, syscall.EACCES) }
