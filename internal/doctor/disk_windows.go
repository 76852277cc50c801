package doctor

import "golang.org/x/sys/windows"

// lookAtDisk asks for the room at a path that exists.
func lookAtDisk(path string) Disk {
	d := Disk{Path: path}
	name, err := windows.UTF16PtrFromString(existing(path))
	if err != nil {
		d.Err = err
		return d
	}
	d.Err = windows.GetDiskFreeSpaceEx(name, &d.Free, &d.Total, nil)
	return d
}
