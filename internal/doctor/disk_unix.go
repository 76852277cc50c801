//go:build linux || darwin

package doctor

import "golang.org/x/sys/unix"

// lookAtDisk asks for the room at a path that exists.
func lookAtDisk(path string) Disk {
	d := Disk{Path: path}
	var s unix.Statfs_t
	if d.Err = unix.Statfs(existing(path), &s); d.Err != nil {
		return d
	}
	block := uint64(s.Bsize)
	d.Free, d.Total = s.Bavail*block, s.Blocks*block
	d.Inodes, d.Files = s.Ffree, s.Files
	return d
}
