package doctor

import (
	"os"
	"strconv"
	"strings"
)

// bindService is the number of CAP_NET_BIND_SERVICE (capabilities(7)).
const bindService = 10

// lookAtPrivilege reads the rules of the kernel and the rights of this process.
func lookAtPrivilege() Privilege {
	p := Privilege{Free: 1024, Known: true, Binary: "callbox"}
	if path, err := os.Executable(); err == nil {
		p.Binary = path
	}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			p.Free = n
		}
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		p.Known = false
		return p
	}
	p.Allows = effective(string(text))&(1<<bindService) != 0
	return p
}

// effective reads the effective capabilities from /proc/self/status.
func effective(status string) uint64 {
	for line := range strings.Lines(status) {
		if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			if err == nil {
				return set
			}
		}
	}
	return 0
}
