package app

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestStartPageReadsAsWritten(t *testing.T) {
	update := os.Getenv("UPDATE_GOLDEN") != "" // go test with it writes the files anew, to be read before they are committed
	home := []netip.Addr{addr("192.168.1.7"), addr("2001:db8::7")}
	base := startPage{
		Version: "1.2.3", Listen: netip.MustParseAddrPort("[::]:8080"), Addrs: home,
		Setup: "c2V0dXA", Fingerprint: strings.Repeat("A1:B2:", 15) + "A1:B2",
		TURNS: turnsOffLocal, Metrics: "127.0.0.1:9464",
		RelayPorts: "49152-65535", Bus: "memory", Node: "homebox", Nodes: 1, Data: "callbox-data",
	}
	with := func(change func(*startPage)) startPage { p := base; change(&p); return p }
	for name, p := range map[string]startPage{
		"first-run": base,
		"loopback": with(func(p *startPage) {
			p.Listen, p.Setup, p.Users, p.RelayPorts = netip.MustParseAddrPort("127.0.0.1:8080"), "", 1, ""
			p.Metrics = ""
		}),
		"cluster": with(func(p *startPage) {
			p.Listen, p.Setup, p.Users = netip.MustParseAddrPort("0.0.0.0:443"), "", 12
			p.Names, p.Certificate, p.TURNS = []string{"call.example"}, []string{"from your files, until 1 March 2027"}, "on"
			p.Bus, p.Nodes, p.Metrics = "redis://redis.example:6379", 3, "10.0.0.5:9090"
			p.Public, p.TURNListen = []netip.Addr{addr("203.0.113.5"), addr("2001:db8::5")}, []string{"udp://:3478"}
		}),
		"one-address": with(func(p *startPage) { p.Listen = netip.MustParseAddrPort("192.168.1.7:8080") }),
		"outside": with(func(p *startPage) {
			p.Outside = []string{"being found out; it is said below", "the router is asked to forward port 8080 (TCP, UDP) once there is an administrator; --map-port off leaves it alone"}
		}),
		"ipv6-only": with(func(p *startPage) { p.Addrs, p.Setup = home[1:], "" }),
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
				if utf8.RuneCountInString(line) > 80 || strings.TrimRight(line, " ") != line {
					t.Errorf("line %d is longer than a terminal is wide or ends in spaces: %q", i+1, line)
				}
			}
		})
	}
}

func TestStartPageBreaksLinesBetweenWordsAlone(t *testing.T) {
	const name = "a-host-whose-name-is-far-too-long-for-the-line.of-a-terminal.example"
	path := "/data/ä b/" + strings.Repeat("deep/", 14) + "call box"
	p := startPage{
		Version: "1.2.3", Listen: netip.MustParseAddrPort("[::]:8080"), Names: []string{name}, Setup: strings.Repeat("s", 43),
		Fingerprint: strings.Repeat("A1:B2:", 15) + "A1:B2", Data: path, TURNS: turnsOffLocal, RelayPorts: "1-2", Bus: "memory",
		TURNListen: []string{"udp://203.0.113.5:3478", "tcp://203.0.113.5:3478", "tls://203.0.113.5:5349"},
	}
	var b strings.Builder
	if err := p.write(&b); err != nil {
		t.Fatal(err)
	}
	if err := p.writeSetup(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(b.String(), "\n") {
		// One word, or one path, may be longer than the line.
		text := strings.ReplaceAll(strings.TrimSpace(line), path, "path")
		text = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(text, "On other devices"), "Data"))
		if utf8.RuneCountInString(line) > 80 && strings.Contains(text, " ") {
			t.Errorf("a line of %d columns: %q", utf8.RuneCountInString(line), line)
		}
	}
	for _, whole := range []string{"https://" + name + ":8080\n", "/setup?token=" + p.Setup + "\n", path + "\n", ":8080/ca\n", "tls://203.0.113.5:5349\n"} {
		if !strings.Contains(b.String(), whole) {
			t.Errorf("%q is broken in\n%s", whole, b.String())
		}
	}
}
