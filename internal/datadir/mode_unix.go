//go:build unix

package datadir

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkMode refuses a mode with any of the closed bits, and says how to clear them.
func checkMode(path string, info fs.FileInfo, closed fs.FileMode, remedy string) error {
	if mode := info.Mode().Perm(); mode&closed != 0 {
		return fmt.Errorf("%w: %s has mode %04o and is open to other users of this machine; run: chmod %s %s", ErrRights, path, mode, remedy, path)
	}
	return nil
}

func checkOwner(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d; run this as that user, with sudo -u '#%d'", ErrRights, path, stat.Uid, stat.Uid)
	}
	return nil
}
