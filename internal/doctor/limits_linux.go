package doctor

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// lookAtFiles counts this process's descriptors.
func lookAtFiles() Files {
	f := Files{Open: -1}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		f.Limit = limit.Cur
	}
	if all, err := os.ReadDir("/proc/self/fd"); err == nil {
		f.Open = len(all) - 1 // without the one that reads the list
	}
	return f
}

// lookAtBuffers asks for a buffer as the relay does, with the privilege where there is one, and looks at what came of it.
func lookAtBuffers(want int) Buffers {
	b := Buffers{Want: want}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Err = err
		return b
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		b.Err = err
		return b
	}
	control := raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, want) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, want)
		}
		b.Got, b.Err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	})
	b.Got /= 2 // the kernel doubles what is asked for, for its own bookkeeping (socket(7))
	if control != nil {
		b.Err = control
	}
	return b
}
