package app

import (
	"errors"
	"syscall"
)

// Errors of Winsock, which package syscall does not name.
const (
	wsaEACCES        = syscall.Errno(10013)
	wsaEADDRINUSE    = syscall.Errno(10048)
	wsaEADDRNOTAVAIL = syscall.Errno(10049)
)

// inUse says that a port belongs to another socket.
func inUse(err error) bool { return errors.Is(err, wsaEADDRINUSE) }

// notAllowed says that this user may not have a port.
func notAllowed(err error) bool { return errors.Is(err, wsaEACCES) }

// notOurs says that no interface has an address.
func notOurs(err error) bool { return errors.Is(err, wsaEADDRNOTAVAIL) }
