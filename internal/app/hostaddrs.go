package app

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// lookEvery is how often the host's addresses are looked at: a machine at home moves to another network.
const lookEvery = 10 * time.Second

// watchHost takes over the host's addresses when they change, until the context ends. The relay looks at each allocation by
// itself, and the local certificate at each handshake.
func (a *App) watchHost(ctx context.Context, every time.Duration, look func() []netip.Addr) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if addrs := look(); !slices.Equal(addrs, a.live.Load().addrs) {
			a.moved(addrs)
		}
	}
}

// moved computes anew what depends on the host's addresses.
func (a *App) moved(addrs []netip.Addr) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	was := a.live.Load()
	l, err := a.newLive(was.cfg, was.turn.Secrets, addrs)
	if err != nil {
		a.log.Error("the host's addresses have changed and are not taken over", logError, err)
		return
	}
	a.take(l)
	if a.watcher != nil {
		a.watcher.Look()
	}
	a.log.Info("the host's addresses have changed", logWas, was.addrs, logNow, addrs)
}

// hostAddrs are the addresses by which others may reach this host: first those that it uses itself towards the Internet.
func hostAddrs() []netip.Addr {
	var out []netip.Addr
	all := interfaceAddrs()
	// Connecting a datagram socket sends nothing: it asks the routing table. The addresses are documentation's.
	for _, towards := range []string{"203.0.113.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", towards); err == nil {
			if addr := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(); slices.Contains(all, addr) {
				out = append(out, addr)
			}
			_ = c.Close()
		}
	}
	for _, addr := range all {
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool {
		return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
	})
}

// preferred are those to write down, IPv4 first; IPv6 addresses only where there is no other, because people type them badly
// and they change.
func preferred(all []netip.Addr) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, a := range all {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	if len(v4) > 0 {
		return v4
	}
	return v6
}

// interfaceAddrs are the addresses of the interfaces that are up and connected.
func interfaceAddrs() []netip.Addr {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, ok := a.(*net.IPNet); ok {
				if addr, ok := netip.AddrFromSlice(p.IP); ok && !slices.Contains(out, addr.Unmap()) {
					out = append(out, addr.Unmap())
				}
			}
		}
	}
	return out
}
