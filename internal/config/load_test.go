package config

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "callbox.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, s Sources) (Config, Origins) {
	t.Helper()
	c, origins, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	return c, origins
}

func TestDefaults(t *testing.T) {
	c := Default()
	want := Config{
		Listen: netip.MustParseAddrPort("[::]:8080"), Data: "callbox-data", LogFormat: LogAuto, LogLevel: slog.LevelInfo,
		QR: Auto, GuestInvites: InviteUsers, OIDCName: "single sign-on",
		OIDCScopes: []string{"openid", "profile", "email"}, OIDCUsernameClaims: []string{"preferred_username", "email"},
		DoctorEvery: 12 * time.Hour, SessionTTL: 168 * time.Hour, TURNTTL: time.Hour, Realm: "callbox", TURNS: Auto, RelayPorts: PortRange{49152, 65535}, RelayPlane: AutoPlane,
		MetricsListen: MetricsAddr{Auto: true},
		UserQuota:     100, UnauthRate: 2000, ConnectionsPerAddress: 20000, MessageRate: 1000, MessageBytes: 4e6, MaxPeers: 50, ConnectionsPerUser: 100,
		STUNServers: []STUNServer{"stun.cloudflare.com:3478", "stun.l.google.com:19302"}, MapPort: MapAuto,
		Bus: Memory, BusPrefix: "callbox", NodeName: c.NodeName,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	if c.NodeName == "" || c.Clustered() || c.DrainTimeout != 0 {
		t.Errorf("node name %q, clustered %v, drain timeout %v", c.NodeName, c.Clustered(), c.DrainTimeout)
	}
}

func TestFlagBeforeEnvironmentBeforeFileBeforeDefault(t *testing.T) {
	path := writeFile(t, "listen: :1\nrealm: file\nmax-peers: 11\npublic-ip: [192.0.2.1, \"2001:db8::1\"]\nturns: off\n")
	c, origins := load(t, Sources{
		Flags:   map[string][]string{"listen": {"127.0.0.1:3"}, "config": {path}},
		Environ: []string{"CALLBOX_LISTEN=:2", "CALLBOX_REALM=env", "CALLBOX_CONFIG=/nowhere", "HOME=/root", "CALLBOX_DATA="},
	})
	if c.Listen != netip.MustParseAddrPort("127.0.0.1:3") || c.Realm != "env" || c.MaxPeers != 11 || c.TURNS != Off || c.MessageRate != 1000 || c.Data != "callbox-data" {
		t.Errorf("got %+v", c)
	}
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}; !slices.Equal(c.PublicIP, want) {
		t.Errorf("public addresses %v", c.PublicIP)
	}
	for key, want := range map[string]string{"listen": "flag", "realm": "CALLBOX_REALM", "max-peers": path + ":3", "message-rate": "default", "config": "flag"} {
		if origins[key] != want {
			t.Errorf("%s from %q, want %q", key, origins[key], want)
		}
	}
}

func TestAListGivenHigherUpReplacesTheLower(t *testing.T) {
	path := writeFile(t, "trusted-proxy:\n  - 10.0.0.0/8\n  - 192.168.0.0/16\n")
	c, _ := load(t, Sources{Flags: map[string][]string{"trusted-proxy": {"127.0.0.1", "fd00::1/8"}}, Environ: []string{"CALLBOX_CONFIG=" + path}})
	if want := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("fd00::/8")}; !slices.Equal(c.TrustedProxy, want) {
		t.Errorf("got %v", c.TrustedProxy)
	}
}

func TestListsInTheEnvironmentAreSeparatedBySpacesOrCommas(t *testing.T) {
	c, _ := load(t, Sources{Environ: []string{
		"CALLBOX_ORIGIN=https://a.example, https://B.example:443 http://localhost:3000/",
		"CALLBOX_ICE_SERVER=stun:stun.example:3478 turn:turn.example:3478,user,pass,word",
		"CALLBOX_ALLOW_PEER=lan,10.1.0.0/16",
	}})
	if want := []Origin{"https://a.example", "https://b.example", "http://localhost:3000"}; !slices.Equal(c.Origins, want) {
		t.Errorf("origins %q", c.Origins)
	}
	if want := []ICEServer{{URL: "stun:stun.example:3478"}, {"turn:turn.example:3478?transport=udp", "user", "pass,word"}}; !slices.Equal(c.ICEServers, want) {
		t.Errorf("servers %+v", c.ICEServers)
	}
	if want := []PeerRule{"lan", "10.1.0.0/16"}; !slices.Equal(c.AllowPeer, want) {
		t.Errorf("rules %q", c.AllowPeer)
	}
}

func TestKubernetesServiceVariablesAreNoSettings(t *testing.T) {
	load(t, Sources{Environ: []string{"CALLBOX_PORT=tcp://10.0.0.1:443", "CALLBOX_PORT_443_TCP_ADDR=10.0.0.1", "CALLBOX_SERVICE_HOST=10.0.0.1", "CALLBOXES=3"}})
}

func TestDomainMovesTheListenersToTheirUsualPorts(t *testing.T) {
	c, _ := load(t, Sources{Flags: map[string][]string{"domain": {"Call.Example.", "203.0.113.9"}}})
	if c.Listen.String() != "[::]:443" || c.HTTPListen.String() != "[::]:80" || !slices.Equal(c.Domains, []string{"call.example", "203.0.113.9"}) {
		t.Errorf("listen %v, http %v, domains %q", c.Listen, c.HTTPListen, c.Domains)
	}
	c, _ = load(t, Sources{Flags: map[string][]string{"domain": {"call.example"}, "listen": {":8443"}}})
	if c.Listen.Port() != 8443 || c.HTTPListen.IsValid() {
		t.Errorf("with a listener of one's own: %v, http %v", c.Listen, c.HTTPListen)
	}
	c, _ = load(t, Sources{})
	if c.Listen.Port() != 8080 || c.HTTPListen.IsValid() {
		t.Errorf("without a domain: %v, http %v", c.Listen, c.HTTPListen)
	}
}

func TestFaultsOfCertificateSettings(t *testing.T) {
	for name, c := range map[string]struct {
		flags map[string][]string
		key   string
	}{
		"no name":         {map[string][]string{"domain": {"https://call.example"}}, "domain"},
		"two sources":     {map[string][]string{"domain": {"call.example"}, "tls-cert": {"a"}, "tls-key": {"b"}}, "domain"},
		"nothing to get":  {map[string][]string{"acme-email": {"a@b.example"}}, "acme-email"},
		"plain authority": {map[string][]string{"domain": {"call.example"}, "acme-ca": {"http://ca.example/dir"}}, "acme-ca"},
		"no address":      {map[string][]string{"domain": {"call.example"}, "acme-email": {"me"}}, "acme-email"},
		"one port":        {map[string][]string{"listen": {":8443"}, "http-listen": {":8443"}}, "http-listen"},
		"one port twice":  {map[string][]string{"listen": {":8443"}, "turn-listen": {"udp://192.0.2.1:8443"}}, "turn-listen"},
	} {
		_, _, err := Load(Sources{Flags: c.flags})
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Key != c.key {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClusterNodeDrainsAndNeedsASecret(t *testing.T) {
	bus := map[string][]string{"bus": {"redis://127.0.0.1:6379"}}
	_, _, err := Load(Sources{Flags: bus})
	if err == nil || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("error %v", err)
	}
	c, _ := load(t, Sources{Flags: bus, Environ: []string{"CALLBOX_TURN_SECRET_FILE=/run/secret"}})
	if !c.Clustered() || c.DrainTimeout != 30*time.Second {
		t.Errorf("clustered %v, drain timeout %v", c.Clustered(), c.DrainTimeout)
	}
	c, _ = load(t, Sources{Flags: bus, Environ: []string{"CALLBOX_CLUSTER_SECRET_FILE=/run/secret", "CALLBOX_DRAIN_TIMEOUT=0"}})
	if c.DrainTimeout != 0 {
		t.Errorf("drain timeout %v though given", c.DrainTimeout)
	}
}

func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	path := writeFile(t, "listne: :1\nrealm: \"a:b\"\nrealm: c\nmax-peers: many\nsession-ttl: 1 week\nturns:\nlog-level: {a: b}\ntrusted-proxy: [10.0.0.0/8, nonsense, 300.1.1.1]\ndata: [a, b]\nconfig: other.yaml\n")
	_, _, err := Load(Sources{
		Flags:   map[string][]string{"config": {path}, "relay-ports": {"9-1"}, "public-ip": {"192.0.2.1", "192.0.2.2"}, "tls-cert": {"x.pem"}, "bus": {"http://user:hunter2@x"}, "realm": {"x", "y"}},
		Environ: []string{"CALLBOX_TURN_TTL=1s", "CALLBOX_MESSAGE_BYTE=1MB", "CALLBOX_ICE_SERVER=turn:x.example,user,hunter2 turn:y.example", "CALLBOX_WEBHOOK=https://user:hunter2@x.example/h"},
	})
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error %v is not Faults", err)
	}
	at := func(line string) string { return path + ":" + line }
	for _, want := range []struct{ key, source, text string }{
		{"listne", at("1"), "did you mean listen?"},
		{"realm", at("3"), "twice, first at " + at("2")},
		{"realm", "flag", "more than once"},
		{"max-peers", at("4"), "“many” is not a whole number"},
		{"session-ttl", at("5"), "“1 week” is not a duration; write a number with a unit"},
		{"turns", at("6"), "has no value"},
		{"log-level", at("7"), "is a mapping"},
		{"trusted-proxy", at("8"), "“nonsense” is not a network"},
		{"trusted-proxy", at("8"), "“300.1.1.1” is not a network"},
		{"data", at("9"), "is a list, and takes one value"},
		{"config", at("10"), "stands inside a configuration file"},
		{"relay-ports", "flag", "ends before it starts"},
		{"public-ip", "flag", "two addresses of one family"},
		{"tls-cert", "flag", "is given without tls-key"},
		{"bus", "flag", "is not a bus"},
		{"turn-ttl", "CALLBOX_TURN_TTL", "out of range; give a value from 1m to 720h"},
		{"message-byte", "CALLBOX_MESSAGE_BYTE", "did you mean CALLBOX_MESSAGE_BYTES?"},
		{"ice-server", "CALLBOX_ICE_SERVER", "without user and credential"},
		{"webhook", "CALLBOX_WEBHOOK", "holds a password"},
	} {
		i := slices.IndexFunc(faults, func(f Fault) bool {
			return f.Key == want.key && f.Source == want.source && strings.Contains(f.Error(), want.text)
		})
		if i < 0 {
			t.Errorf("no fault %s (%s): %s", want.key, want.source, want.text)
			continue
		}
		if faults[i].Remedy == "" {
			t.Errorf("%v has no remedy", faults[i])
		}
		faults = slices.Delete(faults, i, i+1)
	}
	if len(faults) > 0 {
		t.Errorf("more faults:\n%v", faults)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret is shown:\n%v", err)
	}
}

func TestFaultsOfWhatSettingsNameStandBesideTheOthers(t *testing.T) {
	_, _, err := Load(Sources{
		Flags:   map[string][]string{"tls-cert": {"x.pem"}, "tls-key": {"x.key", "y.key"}, "max-peers": {"1"}},
		Environ: []string{"CALLBOX_TURN_SECRET_FILE=/nowhere"},
		Check: func(c Config) Faults {
			if c.TLSCert != "x.pem" || c.TLSKey != "" || c.TURNSecretFile != "/nowhere" {
				t.Errorf("asked about %+v", c)
			}
			return Faults{{Key: "turn-secret-file", Value: c.TURNSecretFile, Problem: "does not exist", Remedy: "make one"}}
		},
	})
	if err == nil {
		t.Fatal("no fault")
	}
	for _, want := range []string{"max-peers (--max-peers)", "tls-key (--tls-key)", "turn-secret-file (CALLBOX_TURN_SECRET_FILE): “/nowhere” does not exist; make one"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestFaultsOfTheFileItself(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no YAML":       {"listen: [", "is not valid YAML"},
		"tab":           {"listen: :1\n\trealm: x", "callbox.yaml:2): is not valid YAML"},
		"list":          {"- a\n- b\n", "is not a mapping"},
		"scalar":        {"hello", "is not a mapping"},
		"two documents": {"listen: :1\n---\nrealm: x\n", "second YAML document"},
		"nested":        {"public-ip: [[1.2.3.4]]", "item that is no plain value"},
		"merge key":     {"<<: {listen: \":1\"}", "is not a setting"},
		"complex key":   {"? [a, b]\n: c\n", "is not a setting"},
		"long":          {"# " + strings.Repeat("x", maxFile), "longer than"},
	} {
		_, _, err := Load(Sources{Flags: map[string][]string{"config": {writeFile(t, c.text)}}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "null\n", "&a listen: &b \":8080\"\n"} {
		if _, _, err := Load(Sources{Flags: map[string][]string{"config": {writeFile(t, text)}}}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, path := range []string{"", filepath.Join(t.TempDir(), "nothing.yaml"), t.TempDir()} {
		if _, _, err := Load(Sources{Flags: map[string][]string{"config": {path}}}); err == nil || !strings.Contains(err.Error(), "config (--config)") {
			t.Errorf("%q: error %v", path, err)
		}
	}
}

func TestEverySettingIsDescribedAndParses(t *testing.T) {
	structure := reflect.TypeFor[Config]()
	for i := range structure.NumField() {
		f := structure.Field(i)
		if f.Tag.Get("type") != "raw" || f.Tag.Get("help") == "" || f.Tag.Get("group") == "" || f.Tag.Get("placeholder") == "" || f.Tag.Get("name") == "" {
			t.Errorf("%s: incomplete tags %q", f.Name, f.Tag)
		}
		if (f.Tag.Get("min") == "") != (f.Tag.Get("max") == "") {
			t.Errorf("%s: one bound without the other", f.Name)
		}
		element := f.Type
		if element.Kind() == reflect.Slice {
			element = element.Elem()
		}
		if err := parse(reflect.New(element).Elem(), "\x00"); err != nil && strings.Contains(err.Error(), "has no parser") {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add("listen: :8080\npublic-ip: [192.0.2.1]\n")
	f.Add("a: &x [*x]\n")
	f.Add("listen: !!binary aGVsbG8=\n")
	f.Add("? \n: \n")
	f.Fuzz(func(t *testing.T, text string) {
		given, faults := parseFile("f", []byte(text), allFields())
		for name, g := range given {
			if !known(allFields(), name) {
				t.Errorf("%q: setting %q", text, name)
			}
			for _, field := range allFields() {
				if field.name == name && !field.list && len(g.values) != 1 {
					t.Errorf("%q: %d values for %s", text, len(g.values), name)
				}
			}
		}
		_ = faults.Error()
	})
}
