//go:build !windows

package app

import (
	"errors"
	"syscall"
)

// inUse says that a port belongs to another socket.
func inUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// notAllowed says that this user may not have a port.
func notAllowed(err error) bool { return errors.Is(err, syscall.EACCES) }

// notOurs says that no interface has an address.
func notOurs(err error) bool { return errors.Is(err, syscall.EADDRNOTAVAIL) }
