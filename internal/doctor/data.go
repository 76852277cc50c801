package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Data is the state of the data directory.
type Data struct {
	Path    string
	Missing bool  // it is made at the first start
	Err     error // looking at it, or writing into it or into its parent where it is missing
	IsDir   bool
	Mode    fs.FileMode // permission bits; 0 where they do not describe access
	Owner   int         // user number; -1 where files have none
	Self    int         // of this process; -1
	// Newest is when a file in it was last written.
	Newest time.Time
	// Faulty are files in it with a fault, as "secret is open to other users".
	Faulty []string
}

// data judges the data directory.
func data(d Data) Check {
	switch {
	case d.Missing && d.Err != nil:
		return failure(NameData, fmt.Sprintf("%s is not there and cannot be made: %v", d.Path, pathCause(d.Err)),
			"make it for the user that runs the server: sudo install -d -m 700 -o USER "+d.Path+"; or name another with --data")
	case d.Missing:
		return good(NameData, d.Path+" is not there yet; the first start makes it")
	case d.Owner >= 0 && d.Self >= 0 && d.Owner != d.Self:
		return failure(NameData, fmt.Sprintf("%s belongs to user number %d, and this is user number %d", d.Path, d.Owner, d.Self),
			fmt.Sprintf("run callbox as that user (sudo -u '#%d' callbox ...), or give it the directory: sudo chown -R %d %s", d.Owner, d.Self, d.Path))
	case d.Err != nil:
		return failure(NameData, fmt.Sprintf("%s: %v", d.Path, pathCause(d.Err)), "give the user that runs the server the right to read and write it: chmod u+rwx "+d.Path)
	case !d.IsDir:
		return failure(NameData, d.Path+" is no directory", "move the file away, or name another directory with --data")
	case d.Mode&0o077 != 0:
		return failure(NameData, fmt.Sprintf("%s has mode %04o and is open to other users", d.Path, d.Mode), "run: chmod go= "+d.Path)
	case len(d.Faulty) > 0:
		return failure(NameData, "in "+d.Path+": "+d.Faulty[0], "run: chmod -R go= "+d.Path+"; sudo chown -R "+fmt.Sprint(d.Self)+" "+d.Path)
	}
	saw := d.Path + " can be written"
	if d.Mode != 0 {
		saw += fmt.Sprintf(", mode %04o", d.Mode)
	}
	return good(NameData, saw+", closed to others")
}

// lookAtData looks, and writes a file of no content for a moment.
func lookAtData(path string) Data {
	d := Data{Path: path, Owner: -1, Self: -1}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.Missing = true
		d.Err = tryWrite(existing(filepath.Dir(path)))
		return d
	}
	if err != nil {
		d.Err = err
		return d
	}
	d.IsDir = info.IsDir()
	d.Mode, d.Owner, d.Self = rights(info)
	if !d.IsDir || d.Owner != d.Self {
		return d
	}
	// Only the top: what stands deeper is as closed as the way to it.
	entries, err := os.ReadDir(path)
	if err != nil {
		d.Err = err
		return d
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue // gone meanwhile
		}
		if info.ModTime().After(d.Newest) {
			d.Newest = info.ModTime()
		}
		if _, owner, self := rights(info); owner != self {
			d.Faulty = append(d.Faulty, fmt.Sprintf("%s belongs to user number %d", entry.Name(), owner))
		}
	}
	d.Err = tryWrite(path)
	return d
}

// existing is the nearest directory above that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || filepath.Dir(path) == path {
			return path
		}
		path = filepath.Dir(path)
	}
}

func tryWrite(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-*.tmp")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// pathCause is an error without the path of the file that was tried.
func pathCause(err error) error {
	var system *fs.PathError
	if errors.As(err, &system) {
		return system.Err
	}
	return err
}
