package app

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"callbox/internal/config"
)

func TestAPortThatCannotBeHadIsExplained(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	if _, err = listenTCP(addr, "listen"); err == nil {
		t.Fatal("bound twice")
	}
	for _, want := range []string{fmt.Sprintf("port %d is in use by ", addr.Port()), "--listen"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	denied := &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EACCES}
	if !notAllowed(denied) {
		return // Windows has another number for it
	}
	err = busyPort(denied, "tcp", netip.MustParseAddrPort("[::]:443"), "listen")
	for _, want := range []string{"port 443 is not for this user", "setcap cap_net_bind_service=+ep", "AmbientCapabilities=CAP_NET_BIND_SERVICE"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}

// TestATakenTURNPortIsNamed, and not the one port, which is free.
func TestATakenTURNPortIsNamed(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	at := taken.LocalAddr().(*net.UDPAddr).AddrPort()
	cfg := onLoopback(t)
	cfg.TURNListen = []config.Listener{{Network: "udp", Addr: at}}
	_, err = New(t.Context(), cfg, Options{})
	if err == nil {
		t.Fatal("started")
	}
	for _, want := range []string{fmt.Sprintf("port %d is in use by ", at.Port()), "--turn-listen"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}

func TestAnAddressOfAnotherMachineIsExplained(t *testing.T) {
	_, err := listenTCP(netip.MustParseAddrPort("192.0.2.1:1"), "listen")
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1 is no address of this machine") {
		t.Errorf("%v", err)
	}
}
