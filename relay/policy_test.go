package relay

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestPolicy(t *testing.T) {
	for _, row := range []struct {
		allow, deny string
		yes, no     string
	}{
		{
			yes: "8.8.8.8 1.1.1.1 172.15.0.1 172.32.0.1 100.63.0.1 192.1.0.1 2600::1 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1",
			no: "127.0.0.1 127.255.0.1 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.1.1 169.254.169.254 " +
				"100.64.0.1 100.127.255.255 192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 198.19.255.255 224.0.0.1 239.1.1.1 240.0.0.1 " +
				"255.255.255.255 192.0.0.8 :: ::1 fe80::1 fc00::1 fd12::1 fd00:ec2::254 ff02::1 2001:db8::1 2001::1 100::1 " +
				"::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 " +
				"2002:7f00:1::1 2002:a00:1::1 2002:c0a8:101:: ::7f00:1 ::10.0.0.1",
		},
		{allow: "10.0.0.0/8", yes: "10.1.2.3 ::ffff:10.1.2.3 8.8.8.8", no: "192.168.0.1 127.0.0.1"},
		{allow: "10.0.0.0/8", deny: "10.1.0.0/16", yes: "10.2.0.1", no: "10.1.2.3"},
		{allow: "10.1.0.0/16", deny: "10.1.0.0/16", no: "10.1.2.3"},
		{allow: "10.1.2.3", deny: "10.0.0.0/8", yes: "10.1.2.3", no: "10.1.2.4"},
		{allow: "169.254.0.0/16", yes: "169.254.1.1", no: "169.254.169.254"},
		{allow: "0.0.0.0/0 ::/0", yes: "8.8.8.8", no: "10.0.0.1 127.0.0.1 0.0.0.0 ::1 fd00::1 224.0.0.1"},
		{allow: "0.0.0.0/8 224.0.0.0/4 ff00::/8 255.255.255.255", no: "0.0.0.0 224.0.0.1 ff02::1 255.255.255.255"},
		{deny: "0.0.0.0/0", yes: "2600::1", no: "8.8.8.8 ::ffff:8.8.8.8"},
		{deny: "0.0.0.0/0", allow: "8.8.0.0/16", yes: "8.8.8.8", no: "9.9.9.9"},
		{allow: "::ffff:10.0.0.0/104", yes: "10.1.2.3"},
		{deny: "64:ff9b::/96", yes: "8.8.8.8 2002:808:808::1", no: "64:ff9b::808:808"},
		{deny: "2002::/16", allow: "2002:808::/32", yes: "2002:808:808::1", no: "2002:909:909::1"},
		{deny: "::/0", yes: "8.8.8.8", no: "2600::1 64:ff9b::808:808"},
		{allow: "64:ff9b::/96", no: "64:ff9b::a00:1"},
		{allow: "::1 127.0.0.1", yes: "::1 127.0.0.1", no: "127.0.0.2"},
	} {
		p, err := ParsePolicy(strings.Fields(row.allow), strings.Fields(row.deny))
		if err != nil {
			t.Fatal(err)
		}
		for want, list := range map[bool]string{true: row.yes, false: row.no} {
			for _, a := range strings.Fields(list) {
				if got := p.Allow(netip.AddrPortFrom(netip.MustParseAddr(a), 9)); got != want {
					t.Errorf("allow %q, deny %q: %s is %v", row.allow, row.deny, a, got)
				}
			}
		}
	}
}

func TestPolicyAdmitsTheLAN(t *testing.T) {
	p, err := ParsePolicy([]string{"lan"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range lan() {
		if got := p.Allow(netip.AddrPortFrom(n.Addr().Next(), 9)); !got {
			t.Errorf("%v is not admitted", n)
		}
	}
	if p.Allow(netip.MustParseAddrPort("127.0.0.1:9")) {
		t.Error("loopback is admitted")
	}
	if got := broadcast(netip.MustParsePrefix("192.168.1.0/24")).String(); got != "192.168.1.255/32" {
		t.Error(got)
	}
	if got := broadcast(netip.MustParsePrefix("10.8.0.0/14")).String(); got != "10.11.255.255/32" {
		t.Error(got)
	}
}

func TestPolicyNamesEveryFault(t *testing.T) {
	_, err := ParsePolicy([]string{"10.0.0.0/8", "home"}, []string{"300.1.1.1"})
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), `"home"`) || !strings.Contains(err.Error(), `"300.1.1.1"`) {
		t.Fatal(err)
	}
}
