package doctor

import "fmt"

const (
	diskFail = 32 << 20
	diskWarn = 512 << 20
	// inodeFail is how many files must still fit: a record that changes is written beside its old file first.
	inodeFail = 100
)

// Disk is the room on the data directory's file system.
type Disk struct {
	Path   string
	Free   uint64 // bytes for this user
	Total  uint64
	Inodes uint64 // files that still fit; 0 of 0: no such bound
	Files  uint64 // files in all
	Err    error
}

// disk judges the room for records, certificates and logs.
func disk(d Disk) Check {
	saw := fmt.Sprintf("%s of %s free for %s", size(d.Free), size(d.Total), d.Path)
	remedy := "make room on the file system of " + d.Path + ", or move the data directory and name it with --data"
	switch {
	case d.Err != nil:
		return skipped(NameDisk, fmt.Sprintf("cannot be told: %v", d.Err))
	case d.Free < diskFail:
		return failure(NameDisk, saw, remedy)
	case d.Files > 0 && d.Inodes < inodeFail:
		return failure(NameDisk, fmt.Sprintf("room for %d more files for %s", d.Inodes, d.Path), remedy)
	case d.Free < diskWarn:
		return warning(NameDisk, saw, remedy)
	}
	return good(NameDisk, saw)
}

// size writes bytes for people.
func size(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
