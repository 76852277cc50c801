package doctor

import "fmt"

const (
	// spareFiles must be left for a server to go on accepting anybody.
	spareFiles = 64
	// baseFiles are for connections, whatever the relay needs.
	baseFiles = 1024
)

// Files are the file descriptors of this process.
type Files struct {
	Limit uint64 // that this process may have; 0: the system has no such bound
	Open  int    // now; -1 unknown
	Ports int    // of --relay-ports, each of which takes one while it is allocated; 0 sealed
}

// files judges whether the descriptors will do for what the configuration allows.
func files(f Files) Check {
	if f.Limit == 0 {
		return skipped(NameFiles, "this system sets no bound for a process")
	}
	const remedy = "raise the bound: LimitNOFILE=1048576 in the systemd unit, or ulimit -n 1048576 (as root, or in /etc/security/limits.conf) before the start"
	need := uint64(baseFiles + f.Ports)
	saw := fmt.Sprintf("%d allowed", f.Limit)
	if f.Open >= 0 {
		saw += fmt.Sprintf(", %d open", f.Open)
	}
	switch {
	case f.Open >= 0 && f.Limit < uint64(f.Open+spareFiles):
		return failure(NameFiles, saw+": hardly any connection more is accepted", remedy)
	case f.Limit < need && f.Ports > 0:
		return warning(NameFiles, fmt.Sprintf("%s; %d relay ports and as many clients may need %d", saw, f.Ports, need), remedy)
	case f.Limit < need:
		return warning(NameFiles, fmt.Sprintf("%s; %d are a sensible least", saw, need), remedy)
	}
	return good(NameFiles, saw)
}

// Buffers are the receive buffers of UDP sockets, in bytes.
type Buffers struct {
	Want int
	Got  int // 0: not known
	Err  error
}

// buffers judges whether bursts find room until the relay reads them.
func buffers(b Buffers) Check {
	switch {
	case b.Err != nil:
		return skipped(NameBuffers, fmt.Sprintf("cannot be told: %v", b.Err))
	case b.Got == 0:
		return skipped(NameBuffers, "this system does not say what it gives")
	case b.Got < b.Want:
		return warning(NameBuffers, fmt.Sprintf("%s of the %s that the relay asks for: bursts of video are lost under load", size(uint64(b.Got)), size(uint64(b.Want))),
			fmt.Sprintf("run: sudo sysctl -w net.core.rmem_max=%d; to keep it, write that line into /etc/sysctl.d/callbox.conf", b.Want))
	}
	return good(NameBuffers, fmt.Sprintf("%s, as the relay asks for", size(uint64(b.Want))))
}
