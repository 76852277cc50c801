package doctor

import (
	"errors"

	"golang.org/x/sys/windows"
)

// inUse says that a port belongs to another socket.
func inUse(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }

// notAllowed says that this user may not have a port.
func notAllowed(err error) bool { return errors.Is(err, windows.WSAEACCES) }
