//go:build unix

package datadir

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openTo says that a mode has some of the closed bits, as the rest of a sentence about the file; "" where it has none.
func openTo(info fs.FileInfo, closed fs.FileMode) string {
	if mode := info.Mode().Perm(); mode&closed != 0 {
		return fmt.Sprintf("has mode %04o and is open to other users of this machine", mode)
	}
	return ""
}

func checkOwner(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %[3]d; run this as that user, with sudo -u '#%[3]d', or give it to this one: sudo chown -R %[4]d %[2]s", ErrRights, path, stat.Uid, os.Geteuid())
	}
	return nil
}
