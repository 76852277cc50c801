package app

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStartPageReadsAsWritten(t *testing.T) {
	update := os.Getenv("UPDATE_GOLDEN") != "" // go test with it writes the files anew, to be read before they are committed
	home := []netip.Addr{addr("192.168.1.7"), addr("2001:db8::7")}
	base := startPage{
		Version: "1.2.3", Listen: netip.MustParseAddrPort("[::]:8080"), Addrs: home,
		Setup: "c2V0dXA", Authority: "callbox-data/ca.crt",
		TURNS:      turnsOffLocal,
		RelayPorts: "49152-65535", Bus: "memory", Node: "homebox", Nodes: 1, Data: "callbox-data",
	}
	with := func(change func(*startPage)) startPage { p := base; change(&p); return p }
	for name, p := range map[string]startPage{
		"first-run": base,
		"loopback": with(func(p *startPage) {
			p.Listen, p.Setup, p.Users, p.RelayPorts = netip.MustParseAddrPort("127.0.0.1:8080"), "", 1, ""
		}),
		"cluster": with(func(p *startPage) {
			p.Listen, p.Setup, p.Users = netip.MustParseAddrPort("0.0.0.0:443"), "", 12
			p.Names, p.OwnCert, p.TURNS = []string{"call.example"}, true, "on"
			p.Bus, p.Nodes, p.Metrics = "redis://redis.example:6379", 3, "10.0.0.5:9090"
			p.Public, p.TURNListen = []netip.Addr{addr("203.0.113.5"), addr("2001:db8::5")}, []string{"udp://:3478"}
		}),
		"one-address": with(func(p *startPage) { p.Listen = netip.MustParseAddrPort("192.168.1.7:8080") }),
		"ipv6-only":   with(func(p *startPage) { p.Addrs, p.Setup = home[1:], "" }),
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := p.write(&b); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "startpage-"+name+".txt")
			if update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("the page reads\n%s\nand not as in %s", b.String(), golden)
			}
			for i, line := range strings.Split(b.String(), "\n") {
				if len(line) > 100 || strings.TrimRight(line, " ") != line {
					t.Errorf("line %d is %d characters long or ends in spaces", i+1, len(line))
				}
			}
		})
	}
}
