package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Endpoint is one socket that the server listens on.
type Endpoint struct {
	Network string // "tcp" or "udp"
	Addr    netip.AddrPort
	Setting string // the flag that chooses it, as "listen"
}

func (e Endpoint) String() string { return strings.ToUpper(e.Network) + " " + e.Addr.String() }

// Heard is what came of looking at an endpoint.
type Heard struct {
	Endpoint
	Err    error  // nil: it answers, or would be free
	Holder string // whose the socket is where the port is in use, as "nginx (process 812)"; "" unknown
}

// listening judges the endpoints. started says that the server runs and was asked; else it was tried whether it could bind.
// The server works without those that follow, which it could not open; now it was tried again.
func listening(started bool, all []Heard, without ...Heard) Check {
	var names, faults, remedies []string
	for _, h := range all {
		if h.Err == nil {
			names = append(names, h.String())
			continue
		}
		saw, remedy := listenFault(started, h)
		faults = append(faults, saw)
		if len(remedies) == 0 || remedies[len(remedies)-1] != remedy {
			remedies = append(remedies, remedy)
		}
	}
	fatal := len(faults) > 0
	for _, h := range without {
		saw, remedy := fmt.Sprintf("%v was not free at the start, and is now", h.Endpoint), "restart callbox"
		if h.Err != nil {
			saw, remedy = listenFault(false, h)
		}
		faults, remedies = append(faults, saw), append(remedies, remedy)
	}
	switch {
	case fatal:
		return failure(NameListening, strings.Join(faults, "; "), strings.Join(remedies, "; "))
	case len(faults) > 0:
		return warning(NameListening, "answers on "+strings.Join(names, ", ")+"; "+strings.Join(faults, "; "), strings.Join(remedies, "; "))
	case started:
		return good(NameListening, "answers on "+strings.Join(names, ", "))
	}
	return good(NameListening, "free: "+strings.Join(names, ", "))
}

func listenFault(started bool, h Heard) (saw, remedy string) {
	port := strconv.Itoa(int(h.Addr.Port()))
	switch {
	case started:
		return fmt.Sprintf("%v does not answer this machine itself: %v", h.Endpoint, cause(h.Err)),
			"let the firewall of this machine pass " + strings.ToUpper(h.Network) + " port " + port + ", also over its loopback interface"
	case inUse(h.Err) && isCallbox(h.Holder):
		return fmt.Sprintf("%v is in use by %s", h.Endpoint, h.Holder),
			"where that is the server to examine, run this as its user and name its data directory with --data; else stop it, or choose another port with --" + h.Setting
	case inUse(h.Err) && h.Holder != "":
		return fmt.Sprintf("%v is in use by %s", h.Endpoint, h.Holder),
			"stop that program, or choose another port with --" + h.Setting
	case inUse(h.Err):
		return fmt.Sprintf("%v is in use by another program", h.Endpoint),
			"find it (as root: ss -lntup | grep :" + port + ") and stop it, or choose another port with --" + h.Setting
	case notAllowed(h.Err):
		return fmt.Sprintf("%v is not for this user", h.Endpoint), "see " + NamePrivilege
	}
	return fmt.Sprintf("%v cannot be opened: %v", h.Endpoint, cause(h.Err)),
		"give --" + h.Setting + " an address that this machine has, or none for all, as :" + port
}

// isCallbox says whether a port's holder is a callbox by its name, or by its user's, which packages make.
func isCallbox(holder string) bool {
	return strings.HasPrefix(holder, "callbox (") || strings.HasSuffix(holder, " user callbox")
}

// tryBind tries whether the server could open its endpoints, and closes them again.
func tryBind(all []Endpoint) []Heard {
	out := make([]Heard, 0, len(all))
	for _, e := range all {
		h := Heard{Endpoint: e}
		if e.Network == "udp" {
			var c net.PacketConn
			if c, h.Err = net.ListenPacket("udp", e.Addr.String()); h.Err == nil {
				_ = c.Close()
			}
		} else {
			var l net.Listener
			if l, h.Err = net.Listen("tcp", e.Addr.String()); h.Err == nil {
				_ = l.Close()
			}
		}
		if h.Err != nil && inUse(h.Err) {
			h.Holder = holder(e.Network, e.Addr.Port())
		}
		out = append(out, h)
	}
	return out
}

// cause is the innermost error: what the operating system said, without the addresses, which are named already.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}
