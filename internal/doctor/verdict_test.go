package doctor

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}

var wildcard = netip.MustParseAddrPort("[::]:443")

func TestListeningVerdicts(t *testing.T) {
	tcp, udp := Endpoint{"tcp", wildcard, "listen"}, Endpoint{"udp", wildcard, "listen"}
	busy := &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
	expect(t, listening(true, []Heard{{Endpoint: tcp}, {Endpoint: udp}}), OK, "answers on TCP [::]:443, UDP [::]:443", "")
	expect(t, listening(false, []Heard{{Endpoint: tcp}}), OK, "free: TCP", "")
	expect(t, listening(false, []Heard{{tcp, busy, "nginx (process 812)"}, {Endpoint: udp}}), Fail, "in use by nginx (process 812)", "--listen")
	expect(t, listening(false, []Heard{{Endpoint: tcp}, {udp, busy, ""}}), Fail, "UDP [::]:443 is in use by another", "ss -lntup")
	expect(t, listening(false, []Heard{{tcp, &net.OpError{Op: "listen", Err: syscall.EACCES}, ""}}), Fail, "not for this user", NamePrivilege)
	expect(t, listening(false, []Heard{{tcp, &net.OpError{Op: "listen", Err: syscall.EADDRNOTAVAIL}, ""}}), Fail, "cannot be opened", "an address that this machine has")
	for _, holder := range []string{"callbox (process 812)", "a program of user callbox"} {
		expect(t, listening(false, []Heard{{tcp, busy, holder}}), Fail, "in use by "+holder, "name its data directory with --data")
	}
	web := Endpoint{"tcp", netip.MustParseAddrPort("[::]:80"), "http-listen"}
	expect(t, listening(true, []Heard{{Endpoint: tcp}}, Heard{web, busy, "nginx (process 812)"}), Warn, "TCP [::]:80 is in use by nginx", "--http-listen")
	expect(t, listening(true, []Heard{{Endpoint: tcp}}, Heard{Endpoint: web}), Warn, "not free at the start", "restart")
	expect(t, listening(true, []Heard{{udp, errSilent, ""}}), Fail, "does not answer this machine itself", "firewall")
}

func TestPrivilegeVerdicts(t *testing.T) {
	low := []Endpoint{{"tcp", wildcard, "listen"}}
	p := Privilege{Free: 1024, Known: true, Binary: "/usr/bin/callbox"}
	expect(t, privilege(p, low), Fail, "port 443 is below 1024", "setcap cap_net_bind_service=+ep /usr/bin/callbox")
	expect(t, privilege(p, []Endpoint{{"tcp", netip.MustParseAddrPort("0.0.0.0:8080"), "listen"}}), OK, "none is needed", "")
	p.Bound = true // by a socket handed over
	expect(t, privilege(p, low), OK, "was opened", "")
	p.Allows = true
	expect(t, privilege(p, low), OK, "has it", "")
	p.Free = 80 // net.ipv4.ip_unprivileged_port_start
	expect(t, privilege(p, low), OK, "80 or above", "")
	expect(t, privilege(Privilege{}, low), Skipped, "does not say", "")
}

func TestClockVerdicts(t *testing.T) {
	yes, no := true, false
	for _, tc := range []struct {
		c       Clock
		verdict Verdict
		saw     string
	}{
		{Clock{Now: noon, Offsets: []Offset{{"Redis", 200 * time.Millisecond}}}, OK, "within 200ms of Redis"},
		{Clock{Now: noon, Offsets: []Offset{{"Redis", 20 * time.Second}}}, Warn, "20s behind Redis"},
		{Clock{Now: noon, Offsets: []Offset{{"Redis", -20 * time.Second}}}, Warn, "20s ahead of Redis"},
		{Clock{Now: noon, Offsets: []Offset{{"Redis", time.Second}, {"another", -2 * time.Hour}}}, Fail, "2h0m0s ahead of another"},
		{Clock{Now: noon, Past: []Moment{{"the certificate begins", noon.Add(time.Hour)}}}, Fail, "the clock is behind by 1h0m0s or more"},
		{Clock{Now: noon, Past: []Moment{{"this program was made", noon.Add(-time.Hour)}}}, Skipped, "unknown"},
		{Clock{Now: noon, Synced: &yes}, OK, "NTP keeps it"},
		{Clock{Now: noon, Synced: &no}, Warn, "no NTP keeps it"},
		{Clock{Now: noon, Synced: &no, Offsets: []Offset{{"Redis", 0}}}, OK, "of Redis"},
		{Clock{Now: noon}, Skipped, "unknown"},
	} {
		remedy := ""
		if tc.verdict == Fail || tc.verdict == Warn {
			remedy = "set-ntp true"
		}
		expect(t, clock(tc.c), tc.verdict, tc.saw, remedy)
	}
}

func TestDataVerdicts(t *testing.T) {
	fine := Data{Path: "/d", IsDir: true, Mode: 0o700, Owner: 7, Self: 7}
	expect(t, data(fine), OK, "mode 0700, closed to others", "")
	expect(t, data(Data{Path: "/d", Missing: true}), OK, "the first start makes it", "")
	expect(t, data(Data{Path: "/d", Missing: true, Err: &fs.PathError{Op: "open", Err: syscall.EACCES}}), Fail, "cannot be made: permission denied", "install -d")
	foreign := fine
	foreign.Owner = 0
	expect(t, data(foreign), Fail, "belongs to user number 0, and this is user number 7", "sudo chown -R 7 /d")
	open := fine
	open.Mode = 0o755
	expect(t, data(open), Fail, "open to other users", "chmod go= /d")
	broken := fine
	broken.Err = &fs.PathError{Op: "open", Err: syscall.EROFS}
	expect(t, data(broken), Fail, "read-only file system", "chmod u+rwx")
	file := fine
	file.IsDir = false
	expect(t, data(file), Fail, "no directory", "--data")
	faulty := fine
	faulty.Faulty = []string{"secret belongs to user number 0"}
	expect(t, data(faulty), Fail, "secret belongs to user number 0", "chown")
}

func TestDiskVerdicts(t *testing.T) {
	expect(t, disk(Disk{Path: "/d", Free: 5 << 30, Total: 9 << 30}), OK, "free for /d", "")
	expect(t, disk(Disk{Path: "/d", Free: 100 << 20, Total: 9 << 30}), Warn, "100 MiB of", "make room")
	expect(t, disk(Disk{Path: "/d", Free: 1 << 20, Total: 9 << 30}), Fail, "1024 KiB of", "make room")
	expect(t, disk(Disk{Path: "/d", Free: 5 << 30, Total: 9 << 30, Inodes: 3, Files: 1000}), Fail, "3 more files", "make room")
	expect(t, disk(Disk{Path: "/d", Err: errors.ErrUnsupported}), Skipped, "cannot be told", "")
}

func TestFileDescriptorVerdicts(t *testing.T) {
	expect(t, files(Files{Limit: 1 << 20, Open: 20, Ports: 16384}), OK, "20 open", "")
	expect(t, files(Files{Limit: 4096, Open: 20, Ports: 16384}), Warn, "may need 17408", "LimitNOFILE")
	expect(t, files(Files{Limit: 256, Open: 20}), Warn, "1024 are a sensible least", "ulimit -n")
	expect(t, files(Files{Limit: 4096, Open: 4090}), Fail, "hardly any connection", "LimitNOFILE")
	expect(t, files(Files{Open: -1}), Skipped, "no bound", "")
}

func TestBufferVerdicts(t *testing.T) {
	expect(t, buffers(Buffers{Want: 1 << 20, Got: 1 << 20}), OK, "as the relay asks for", "")
	expect(t, buffers(Buffers{Want: 1 << 20, Got: 212992}), Warn, "208 KiB of the 1024 KiB", "net.core.rmem_max=1048576")
	expect(t, buffers(Buffers{Want: 1 << 20}), Skipped, "does not say", "")
	expect(t, buffers(Buffers{Want: 1 << 20, Err: syscall.EPERM}), Skipped, "cannot be told", "")
}

func TestSecretVerdicts(t *testing.T) {
	expect(t, secret(Secret{Solo: true}), Skipped, "none is needed", "")
	expect(t, secret(Secret{Path: "/s", Len: 44}), OK, "44 bytes", "")
	expect(t, secret(Secret{Path: "/s", Err: errors.New("/s does not exist")}), Fail, "does not exist", "openssl rand")
	expect(t, secret(Secret{Path: "/s", Len: 20, Weak: weak([]byte("aaaaaaaaaabbbbbbbbbb"))}), Warn, "easily guessed", "openssl rand")
	if weak([]byte("MTIzNDU2Nzg5MGFiY2RlZg==")) {
		t.Error("a random text counts as weak")
	}
}

func TestRedisVerdicts(t *testing.T) {
	fine := Redis{URL: "redis://r:6379", Latency: time.Millisecond, Version: "7.0.15", Policy: "noeviction", Persists: "append-only file"}
	expect(t, redis(fine), OK, "version 7.0.15, noeviction, append-only file", "")
	expect(t, redis(Redis{Solo: true}), Skipped, "one process alone", "")
	expect(t, redis(Redis{URL: "redis://r:6379", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}), Fail, "connection refused", "start Redis")
	expect(t, redis(Redis{URL: "redis://r:6379", Err: errors.New("NOAUTH Authentication required.")}), Fail, "NOAUTH", "user and password")
	expect(t, redis(Redis{URL: "redis://r:6379", Err: errors.New("NOPERM this user")}), Fail, "NOPERM", "rights")
	for _, tc := range []struct {
		change  func(*Redis)
		verdict Verdict
		saw     string
		remedy  string
	}{
		{func(r *Redis) { r.Version = "6.0.16" }, Fail, "version 6.0.16", "6.2 or newer"},
		{func(r *Redis) { r.Version = "6.2.1" }, OK, "version 6.2.1", ""},
		{func(r *Redis) { r.Version = "10.1.0" }, OK, "version 10.1.0", ""},
		{func(r *Redis) { r.Policy, r.Bound = "allkeys-lru", 100<<20 }, Warn, "maxmemory-policy allkeys-lru", "noeviction"},
		{func(r *Redis) { r.Policy = "allkeys-lru" }, OK, "allkeys-lru", ""}, // without a bound nothing is dropped
		{func(r *Redis) { r.SaveFailed = true }, Warn, "last snapshot failed", "Redis' log"},
		{func(r *Redis) { r.Latency = 200 * time.Millisecond }, Warn, "answers in 200ms", "same network"},
	} {
		r := fine
		tc.change(&r)
		expect(t, redis(r), tc.verdict, tc.saw, tc.remedy)
	}
}

func TestCertificateVerdicts(t *testing.T) {
	leaf := &x509.Certificate{NotBefore: noon.Add(-24 * time.Hour), NotAfter: noon.Add(60 * 24 * time.Hour), DNSNames: []string{"call.example"}}
	fine := Certificate{Kind: OwnFile, Leaf: leaf, Trusted: true, Names: []string{"call.example"}, Now: noon}
	expect(t, certificate(fine), OK, "publicly trusted, until 2026-06-30", "")
	for _, tc := range []struct {
		change  func(*Certificate)
		verdict Verdict
		saw     string
		remedy  string
	}{
		{func(c *Certificate) { c.Now = noon.Add(61 * 24 * time.Hour) }, Fail, "expired at 2026-06-30", "renew the files"},
		{func(c *Certificate) { c.Now = noon.Add(-48 * time.Hour) }, Fail, "not good before 2026-04-30", NameClock},
		{func(c *Certificate) { c.Now = noon.Add(56 * 24 * time.Hour) }, Warn, "ends soon", "renew the files"},
		{func(c *Certificate) { c.Trusted = false }, Warn, "not publicly trusted", "intermediate"},
		{func(c *Certificate) { c.Names = []string{"other.example"} }, Fail, "not for other.example", "get one for all names"},
		{func(c *Certificate) { c.Leaf, c.Served = nil, errors.New("no certificates configured") }, Fail, "none is served: no certificates", "--tls-cert"},
		{func(c *Certificate) { c.Trouble = "the file is cut off" }, Warn, "the file is cut off", "renew the files"},
		{func(c *Certificate) {
			c.Kind, c.Missing, c.Trouble = ACME, []string{"call.example"}, "rejected: too many certificates"
		}, Fail, "too many certificates", "port 80 or 443"},
		{func(c *Certificate) { c.Kind, c.Missing = ACME, []string{"call.example"} }, Warn, "nothing has failed", "within a minute"},
		{func(c *Certificate) { c.Kind, c.Leaf, c.Trouble = ACME, nil, "DNS problem" }, Fail, "DNS problem", "port 80"},
		{func(c *Certificate) { c.Kind, c.Leaf, c.Served = ACME, nil, errSilent }, Fail, "none is served", "port 80"},
		{func(c *Certificate) { c.Kind, c.Trouble = ACME, "timeout" }, Warn, "getting the next has failed: timeout", "port 80"},
		{func(c *Certificate) { c.Kind, c.Trusted = LocalCA, false }, OK, "own authority", ""},
		{func(c *Certificate) { c.Kind, c.Missing = LocalCA, []string{"new.lan"} }, Warn, "cannot speak for new.lan", "ca.crt"},
	} {
		c := fine
		tc.change(&c)
		expect(t, certificate(c), tc.verdict, tc.saw, tc.remedy)
	}
}

func TestDNSVerdicts(t *testing.T) {
	here := addrs("203.0.113.7", "2001:db8::7")
	expect(t, dns(Names{}), Skipped, "no name", "")
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example", Addrs: here}}, Wanted: here}), OK, "call.example is 203.0.113.7, 2001:db8::7", "")
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example", Addrs: addrs("198.51.100.9")}}, Wanted: here}), Fail, "leads to 198.51.100.9, not to 203.0.113.7 or", "A and AAAA records")
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example", Addrs: addrs("203.0.113.7", "2001:db8::dead")}}, Wanted: here}), Fail, "2001:db8::dead", "alone")
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example", Err: &net.DNSError{Err: "no such host"}}}, Wanted: here}), Fail, "no such host", "make an A record")
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example"}}, Wanted: here}), Fail, "has no address", "make an A record")
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example", Addrs: here}}}), Skipped, "is not known", "")
	// The record has the lasting one of this machine's addresses of IPv6, and servers outside see the one of today.
	lasting := addrs("203.0.113.7", "2001:db8::aaaa")
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example", Addrs: lasting}}, Wanted: here, Own: addrs("192.168.1.7", "2001:db8::aaaa")}), OK, "2001:db8::aaaa", "")
	// The DNS of the house tells the house's own address; hosts files on Debian tell 127.0.1.1.
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example", Addrs: addrs("192.168.1.7")}}, Wanted: here, Own: addrs("192.168.1.7")}), Warn, "on this network only", "203.0.113.7")
	expect(t, dns(Names{Asked: []Resolved{{Name: "call.example", Addrs: addrs("127.0.1.1")}}, Wanted: here}), Warn, "hosts file", "/etc/hosts")
	// The worst of several counts.
	expect(t, dns(Names{Asked: []Resolved{{Name: "a.example", Addrs: addrs("127.0.1.1")}, {Name: "b.example", Addrs: addrs("198.51.100.9")}}, Wanted: here}), Fail, "b.example leads to", "")
}

func TestWayFromOutsideVerdicts(t *testing.T) {
	home := Network{Local: addrs("192.168.1.2"), Found: addrs("203.0.113.7"), How: "STUN", Kind: Independent, WAN: addr("203.0.113.7"), Router: RouterMapped, RouterD: "port 8080 by UPnP"}
	with := func(change func(*Network)) Network { n := home; change(&n); return n }
	at := netip.MustParseAddrPort("203.0.113.7:8080")
	for _, tc := range []struct {
		c       Check
		verdict Verdict
		saw     string
		remedy  string
	}{
		{publicAddress(home), OK, "203.0.113.7, says STUN", ""},
		{publicAddress(with(func(n *Network) { n.Given = n.Found })), OK, "(--public-ip)", ""},
		{publicAddress(with(func(n *Network) { n.Given = addrs("203.0.113.8") })), Warn, "but STUN says 203.0.113.7", "leave --public-ip out"},
		{publicAddress(with(func(n *Network) { n.Found, n.Problem = nil, "no STUN server answers" })), Fail, "no STUN server answers", "--stun-server"},
		{publicAddress(with(func(n *Network) { n.Found = nil })), Skipped, "not known yet", ""},
		{publicAddress(with(func(n *Network) { n.Found, n.Offline = nil, true })), Skipped, "--stun-server none", ""},
		{publicAddress(with(func(n *Network) { n.Loopback = true })), Skipped, "loopback", ""},

		{natKind(home), OK, "endpoint-independent", ""},
		{natKind(with(func(n *Network) { n.Kind = NoNAT })), OK, "none", ""},
		{natKind(with(func(n *Network) { n.Kind = Dependent })), Warn, "symmetric", "forward the server's port"},
		{natKind(with(func(n *Network) { n.Kind = Blocked })), Fail, "no UDP comes back", "let the firewall"},
		{natKind(with(func(n *Network) { n.Kind = "" })), Skipped, "not known", ""},
		{natKind(with(func(n *Network) { n.Kind, n.Offline = "", true })), Skipped, "--stun-server none", ""},
		{natKind(with(func(n *Network) { n.Loopback = true })), Skipped, "loopback", ""},

		{cgnat(home), OK, "none: the router's own address is 203.0.113.7", ""},
		{cgnat(with(func(n *Network) { n.CGNAT, n.CGNATWhy = true, "the router's own address outside is 100.64.1.2" })), Fail, "100.64.1.2", "ask the provider"},
		{cgnat(with(func(n *Network) { n.Kind = NoNAT })), OK, "no NAT", ""},
		{cgnat(with(func(n *Network) { n.WAN = netip.Addr{} })), Skipped, "no sign", ""},
		{cgnat(with(func(n *Network) { n.Loopback = true })), Skipped, "loopback", ""},

		{routerMapping(home, 8080), OK, "port 8080 by UPnP", ""},
		{routerMapping(with(func(n *Network) { n.Router = RouterNone }), 8080), Warn, "no router here speaks", "forward port 8080"},
		{routerMapping(with(func(n *Network) { n.Router, n.RouterD = RouterRefused, "port taken" }), 8080), Fail, "port taken", "forward port 8080"},
		{routerMapping(with(func(n *Network) { n.Router, n.CGNAT = RouterRefused, true }), 8080), Fail, "does not forward", "see CGNAT"},
		{hairpin(with(func(n *Network) { n.CGNAT = true }), Hairpin{At: at, UDP: errSilent}), Warn, "from inside over UDP", "see CGNAT"},
		{routerMapping(with(func(n *Network) { n.Router, n.RouterD = RouterWaiting, "there is no administrator yet" }), 8080), Skipped, "no administrator", ""},
		{routerMapping(with(func(n *Network) { n.Router, n.RouterD = RouterOff, "--map-port off" }), 8080), Skipped, "--map-port off", ""},
		{routerMapping(with(func(n *Network) { n.Kind = NoNAT }), 8080), Skipped, "nothing to map", ""},
		{routerMapping(with(func(n *Network) { n.Loopback = true }), 8080), Skipped, "loopback", ""},

		{hairpin(home, Hairpin{At: at}), OK, "answers from inside", ""},
		{hairpin(home, Hairpin{At: at, UDP: errSilent, TCP: errSilent}), Warn, "over UDP and TCP", "--phone"},
		{hairpin(home, Hairpin{At: at, UDP: errSilent}), Warn, "from inside over UDP", "--phone"},
		{hairpin(home, Hairpin{At: at, TCP: errSilent}), Warn, "from inside over TCP", "--phone"},
		{hairpin(with(func(n *Network) { n.Local = n.Found }), Hairpin{}), Skipped, "this machine's own", ""},
		{hairpin(with(func(n *Network) { n.Found = nil }), Hairpin{}), Skipped, "no public address", ""},
		{hairpin(with(func(n *Network) { n.Loopback = true }), Hairpin{}), Skipped, "loopback", ""},

		{bindingAnswer(at, netip.MustParseAddrPort("192.168.1.2:4000"), nil), OK, "sees this machine as 192.168.1.2", ""},
		{bindingAnswer(at, netip.AddrPort{}, errSilent), Fail, "no answer", "UDP port 8080"},
		{bindingAnswer(at, netip.AddrPort{}, nil), Fail, "without an address", "another program"},
	} {
		expect(t, tc.c, tc.verdict, tc.saw, tc.remedy)
	}
}

func TestRelayVerdicts(t *testing.T) {
	shared := RelayTrip{Network: "udp", Public: netip.MustParseAddrPort("203.0.113.7:8080"), PublicErr: errSilent, Behind: true, CGNAT: true}
	expect(t, relayTrip(shared), Warn, "not at 203.0.113.7:8080", "see CGNAT")
	shared.CGNAT, shared.Mapped = false, true
	expect(t, relayTrip(shared), Warn, "not at 203.0.113.7:8080", "the router says that it forwards the port")
	public, local := netip.MustParseAddrPort("203.0.113.7:8080"), netip.MustParseAddrPort("192.168.1.2:8080")
	trip := RelayTrip{Network: "udp", Port: 8080, Public: public, Local: local, Took: 3 * time.Millisecond}
	for _, tc := range []struct {
		change  func(*RelayTrip)
		verdict Verdict
		saw     string
		remedy  string
	}{
		{func(*RelayTrip) {}, OK, "at 203.0.113.7:8080 reached each other, there and back in 3ms", ""},
		{func(r *RelayTrip) { r.Public = netip.AddrPort{} }, OK, "no public address to try", ""},
		{func(r *RelayTrip) { r.PublicErr, r.Behind = errSilent, true }, Warn, "works at 192.168.1.2:8080 (3ms), but not at", "forward UDP port 8080"},
		{func(r *RelayTrip) { r.PublicErr, r.Behind, r.Network = errSilent, true, "tls" }, Warn, "not at", "forward TCP port 8080"},
		{func(r *RelayTrip) { r.PublicErr = errSilent }, Fail, "but not at 203.0.113.7", "firewall"},
		{func(r *RelayTrip) { r.PublicErr, r.LocalErr = errSilent, errSilent }, Fail, "at 192.168.1.2:8080: no answer", "firewall of this machine"},
		{func(r *RelayTrip) { r.Public, r.LocalErr = netip.AddrPort{}, &refusal{stun.CodeUnauthorized, "x"} }, Fail, "401", NameClock},
		{func(r *RelayTrip) { r.Public, r.LocalErr = netip.AddrPort{}, &refusal{stun.CodeAllocQuotaReached, "x"} }, Fail, "486", "--relay-ports"},
		{func(r *RelayTrip) { r.Public, r.LocalErr = netip.AddrPort{}, &refusal{stun.CodeServerError, "x"} }, Fail, "500", "log"},
	} {
		r := trip
		tc.change(&r)
		expect(t, relayTrip(r), tc.verdict, tc.saw, tc.remedy)
	}
}

func TestReportsAreSummedUp(t *testing.T) {
	r := Report{Checks: []Check{good("a", "x"), skipped("b", "x")}}
	if r.Worst() != OK || r.Summary() != "all is well" {
		t.Errorf("%s, %s", r.Worst(), r.Summary())
	}
	r.Checks = append(r.Checks, warning("c", "x", "y"))
	if r.Worst() != Warn {
		t.Error(r.Worst())
	}
	r.Checks = append(r.Checks, failure("d", "x", "y"))
	if r.Worst() != Fail || r.Summary() != "fail: d; warn: c" {
		t.Errorf("%s, %s", r.Worst(), r.Summary())
	}
}
