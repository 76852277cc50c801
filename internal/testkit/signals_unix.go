//go:build unix

package testkit

import (
	"os"
	"syscall"
)

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
func pause(p *os.Process) error     { return p.Signal(syscall.SIGSTOP) }
func proceed(p *os.Process) error   { return p.Signal(syscall.SIGCONT) }
