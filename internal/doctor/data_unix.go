//go:build unix

package doctor

import (
	"io/fs"
	"os"
	"syscall"
)

// rights are the mode and owner of a file, and this process's user.
func rights(info fs.FileInfo) (mode fs.FileMode, owner, self int) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.Mode().Perm(), -1, -1
	}
	return info.Mode().Perm(), int(stat.Uid), os.Geteuid()
}
