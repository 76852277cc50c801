//go:build unix

package datadir

import (
	"fmt"
	"io/fs"
)

// checkMode refuses a mode with any of the closed bits, and says how to clear them.
func checkMode(path string, info fs.FileInfo, closed fs.FileMode, remedy string) error {
	if mode := info.Mode().Perm(); mode&closed != 0 {
		return fmt.Errorf("%w: %s has mode %04o and is open to other users of this machine; run: chmod %s %s", ErrRights, path, mode, remedy, path)
	}
	return nil
}
