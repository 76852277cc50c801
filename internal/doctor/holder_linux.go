package doctor

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// holder finds whose a port is: a program's name and process where this user may see them, else the user, else "".
func holder(network string, port uint16) string {
	uid := ""
	for _, table := range []string{network, network + "6"} {
		text, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		for _, s := range sockets(string(text), network, port) {
			if name := ownerOfSocket(s.inode); name != "" {
				return name
			}
			uid = s.uid
		}
	}
	if uid == "" {
		return ""
	}
	if u, err := user.LookupId(uid); err == nil {
		return "a program of user " + u.Username
	}
	return "a program of user number " + uid
}

type procSocket struct{ inode, uid string }

// sockets reads a table of /proc/net (proc(5)): those that listen on a port.
func sockets(table, network string, port uint16) []procSocket {
	const listening = "0A" // TCP_LISTEN
	var out []procSocket
	suffix := fmt.Sprintf(":%04X", port)
	for i, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		if i == 0 || len(f) < 10 || !strings.HasSuffix(f[1], suffix) || network == "tcp" && f[3] != listening {
			continue
		}
		out = append(out, procSocket{inode: f[9], uid: f[7]})
	}
	return out
}

// ownerOfSocket looks through the open files of all processes that this user may look into.
func ownerOfSocket(inode string) string {
	want := "socket:[" + inode + "]"
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return ""
	}
	for _, process := range processes {
		files, err := os.ReadDir(filepath.Join(process, "fd"))
		if err != nil {
			continue // of another user, or gone
		}
		for _, file := range files {
			if link, err := os.Readlink(filepath.Join(process, "fd", file.Name())); err == nil && link == want {
				return programName(process)
			}
		}
	}
	return ""
}

func programName(process string) string {
	id := filepath.Base(process)
	name, err := os.ReadFile(filepath.Join(process, "comm"))
	if err != nil {
		return "process " + id
	}
	if n, err := strconv.Atoi(id); err == nil && n == os.Getpid() {
		return "this process itself"
	}
	return strings.TrimSpace(string(name)) + " (process " + id + ")"
}
