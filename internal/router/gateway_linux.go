package router

import (
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// defaultGateway reads the kernel's routing table. The thread's own file is the one that knows its network namespace.
func defaultGateway() (netip.Addr, error) {
	f, err := os.Open("/proc/thread-self/net/route")
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return netip.Addr{}, err
	}
	return parseRoutes(string(text)), nil
}

// parseRoutes finds the default route of the least metric. The zero address: there is none that has a gateway.
func parseRoutes(text string) netip.Addr {
	const up, viaGateway = 0x1, 0x2 // RTF_UP, RTF_GATEWAY
	var best netip.Addr
	least := uint64(1) << 32
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // Iface Destination Gateway Flags RefCnt Use Metric Mask ...
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		gateway, errG := strconv.ParseUint(f[2], 16, 32)
		flags, errF := strconv.ParseUint(f[3], 16, 32)
		metric, errM := strconv.ParseUint(f[6], 10, 32)
		if errG != nil || errF != nil || errM != nil || flags&(up|viaGateway) != up|viaGateway || metric >= least {
			continue
		}
		// The number is the address as it lies in memory, read in the machine's order.
		var in [4]byte
		binary.NativeEndian.PutUint32(in[:], uint32(gateway))
		least, best = metric, netip.AddrFrom4(in)
	}
	return best
}
