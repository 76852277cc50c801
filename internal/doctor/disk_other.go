//go:build !linux && !darwin && !windows

package doctor

import "errors"

// lookAtDisk does not know elsewhere.
func lookAtDisk(path string) Disk {
	return Disk{Path: path, Err: errors.ErrUnsupported}
}
