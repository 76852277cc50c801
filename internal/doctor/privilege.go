package doctor

import (
	"fmt"
	"net/netip"
)

// Privilege is what decides whether low ports may be opened.
type Privilege struct {
	Free   int    // the first port that everybody may open
	Allows bool   // this process may open any port
	Known  bool   // whether the system has such a rule, and it could be read
	Binary string // path of the program, for the remedy
	// Bound: the server has all its ports, by whatever right.
	Bound bool
}

// privilege judges whether the ports may be opened by this user.
func privilege(p Privilege, endpoints []Endpoint) Check {
	var low netip.AddrPort
	var setting string
	for _, e := range endpoints {
		if int(e.Addr.Port()) < p.Free && e.Addr.Port() != 0 && !low.IsValid() {
			low, setting = e.Addr, e.Setting
		}
	}
	switch {
	case !p.Known:
		return skipped(NamePrivilege, "this system does not say which ports are reserved")
	case !low.IsValid():
		return good(NamePrivilege, fmt.Sprintf("none is needed: all ports are %d or above", p.Free))
	case p.Allows:
		return good(NamePrivilege, fmt.Sprintf("port %d needs it, and this process has it", low.Port()))
	case p.Bound:
		return good(NamePrivilege, fmt.Sprintf("port %d needs it, and was opened", low.Port()))
	}
	return failure(NamePrivilege, fmt.Sprintf("port %d is below %d, and this process may not open such ports", low.Port(), p.Free),
		fmt.Sprintf("run: sudo setcap cap_net_bind_service=+ep %s (again after each update); under systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; or choose a port from %d with --%s", p.Binary, p.Free, setting))
}
