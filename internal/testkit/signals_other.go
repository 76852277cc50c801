//go:build !unix

package testkit

import (
	"errors"
	"os"
)

func terminate(p *os.Process) error { return p.Kill() }
func pause(*os.Process) error       { return errors.ErrUnsupported }
func proceed(*os.Process) error     { return errors.ErrUnsupported }
