package config

import (
	"encoding"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestValuesParseAndFormat(t *testing.T) {
	for _, c := range []struct {
		text string
		want any
		form string // "" is the same as text
	}{
		{":8080", netip.MustParseAddrPort("[::]:8080"), ""},
		{"0.0.0.0:443", netip.MustParseAddrPort("0.0.0.0:443"), ""},
		{"localhost:0", netip.MustParseAddrPort("127.0.0.1:0"), "127.0.0.1:0"},
		{"[::1]:80", netip.MustParseAddrPort("[::1]:80"), ""},
		{"[::ffff:10.0.0.1]:80", netip.MustParseAddrPort("10.0.0.1:80"), "10.0.0.1:80"},
		{"1h30m", 90 * time.Minute, ""},
		{"168h", 168 * time.Hour, ""},
		{"90s", 90 * time.Second, "1m30s"},
		{"0", time.Duration(0), "0s"},
		{"none", PortRange{}, ""},
		{"5000", PortRange{5000, 5000}, "5000-5000"},
		{"1-65535", PortRange{1, 65535}, ""},
		{"4MB", ByteSize(4e6), ""},
		{"256KiB", ByteSize(262144), ""},
		{"1048576", ByteSize(1 << 20), "1MiB"},
		{"0", ByteSize(0), ""},
		{"20M", BitRate(20e6), ""},
		{"1500k", BitRate(15e5), ""},
		{"64000bit/s", BitRate(64000), "64k"},
		{"tls://:5349", Listener{"tls", netip.MustParseAddrPort("[::]:5349")}, ""},
		{"udp://192.0.2.1:3478", Listener{"udp", netip.MustParseAddrPort("192.0.2.1:3478")}, ""},
		{"turns:t.example", TURNURL("turns:t.example?transport=tcp"), "turns:t.example?transport=tcp"},
		{"TURN:t.example?", TURNURL("turn:t.example?transport=udp"), "turn:t.example?transport=udp"},
		{"stun:[2001:db8::1]:3478", TURNURL("stun:[2001:db8::1]:3478"), ""},
		{"yes", On, "on"},
		{"auto", MetricsAddr{Auto: true}, ""},
		{"no", MetricsAddr{}, "off"},
		{":9464", MetricsAddr{Addr: netip.MustParseAddrPort("[::]:9464")}, ""},
		{"192.168.1.9/24", PeerRule("192.168.1.0/24"), "192.168.1.0/24"},
		{"::ffff:10.0.0.1", PeerRule("10.0.0.1/32"), "10.0.0.1/32"},
		{"rediss+sentinel://u:p@h:1/0", BusURL("rediss+sentinel://u:p@h:1/0"), ""},
	} {
		got := reflect.New(reflect.TypeOf(c.want)).Elem()
		if err := parse(got, c.text); err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got.Interface() != c.want {
			t.Errorf("%q: got %v, want %v", c.text, got, c.want)
		}
		want := c.form
		if want == "" {
			want = c.text
		}
		if text := format(got); text != want {
			t.Errorf("%q is written as %q, want %q", c.text, text, want)
		}
	}
}

func TestBadValuesAreRefusedWithARemedy(t *testing.T) {
	for _, c := range []struct {
		into  any
		texts []string
	}{
		{new(netip.AddrPort), []string{"", "8080", ":", ":http", ":65536", "example.com:80", "1.2.3:80", "::1:80"}},
		{new(netip.Prefix), []string{"", "x", "10.0.0.0/33", "10.0.0.0/", "lan"}},
		{new(netip.Addr), []string{"", "0.0.0.0", "::", "fe80::1%eth0", "1.2.3.4:5", "host"}},
		{new(time.Duration), []string{"", "5", "-1s", "1d", "forever"}},
		{new(PortRange), []string{"", "0", "0-5", "5-1", "1-65536", "a-b", "-", "1-2-3"}},
		{new(ByteSize), []string{"", "MB", "-1", "1.5MB", "99999999999GB", "1TB"}},
		{new(BitRate), []string{"", "-1", "fast", "9999999999999G"}},
		{new(Listener), []string{"", "udp", "udp://", "http://:80", "udp://host:1", ":3478"}},
		{new(TURNURL), []string{"", "turn:", "turn://h", "http:h", "turn:h:0", "turn:h?transport=sctp", "stun:h?transport=udp", "turn:u@h", "turn:h:1#", "turn:h#f", "h:3478"}},
		{new(ICEServer), []string{"", ",", "turn:h", "turn:h,user", "turn:h,,", "stun:h,user", "x,y,z"}},
		{new(Origin), []string{"", "null", "*", "https://", "https://*.example", "https://h/path", "https://u@h", "ws://h", "h.example", "https://h?q"}},
		{new(PeerRule), []string{"", "wan", "10.0.0.0/99"}},
		{new(BusURL), []string{"", "redis", "redis://", "nats://h", "http://h", "%"}},
		{new(MetricsAddr), []string{"", "on", "9464", "localhost", "127.0.0.1"}},
		{new(LogFormat), []string{"", "xml", "JSON"}},
		{new(Toggle), []string{"", "maybe"}},
		{new(int), []string{"", "1.5", "0x10", "many", "99999999999999999999"}},
	} {
		for _, text := range c.texts {
			err := parse(reflect.ValueOf(c.into).Elem(), text)
			if err == nil {
				t.Errorf("%T takes %q", c.into, text)
			} else if p := asProblem(err); p.text == "" || p.remedy == "" {
				t.Errorf("%T refuses %q without a remedy: %v", c.into, text, err)
			}
		}
	}
}

// secretSources have a secret in every place that can hold one.
func secretSources() Sources {
	return Sources{Flags: map[string][]string{
		"bus":                 {"redis://user:hunter2@127.0.0.1:6379/1?sentinel_password=hunter2"},
		"cluster-secret-file": {"/run/cluster"},
		"ice-server":          {"turn:t.example,user,hunter2", "stun:s.example"},
		"public-ip":           {"192.0.2.1"},
	}}
}

func TestRenderedConfigurationMasksSecretsAndReadsBack(t *testing.T) {
	c, origins := load(t, secretSources())
	text, err := c.YAML(origins)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hunter2") || !strings.Contains(string(text), "turn:t.example?transport=udp,user,xxxxx") {
		t.Errorf("masking:\n%s", text)
	}
	again, _ := load(t, Sources{Flags: map[string][]string{"config": {writeFile(t, string(text))}}})
	c.ICEServers[0].Credential, c.Bus = "xxxxx", BusURL(c.Bus.Masked())
	again.File = ""
	if !reflect.DeepEqual(again, c) {
		t.Errorf("reads back as %+v\nwant %+v\nfrom\n%s", again, c, text)
	}
}

func TestJSONIsOneObjectOfAllSettings(t *testing.T) {
	c, _ := load(t, secretSources())
	text, err := c.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hunter2") {
		t.Errorf("a secret is shown:\n%s", text)
	}
	if len(object) != reflect.TypeFor[Config]().NumField() {
		t.Errorf("%d keys", len(object))
	}
	for key, want := range map[string]any{"listen": ":8080", "user-quota": 100.0, "public-ip": []any{"192.0.2.1"}, "origin": []any{}, "tls-cert": nil, "turn-ttl": "1h"} {
		if !reflect.DeepEqual(object[key], want) {
			t.Errorf("%s is %v, want %v", key, object[key], want)
		}
	}
}

func FuzzValues(f *testing.F) {
	for _, s := range []string{":8080", "turn:h:1,u,c", "redis://h", "1-2", "4MB", "lan", "https://h", "tls://:1", "turn:0:1#", "STUN:h?"} {
		f.Add(s)
	}
	types := []reflect.Type{}
	for i := range reflect.TypeFor[Config]().NumField() {
		t := reflect.TypeFor[Config]().Field(i).Type
		if t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		types = append(types, t)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, typ := range types {
			v := reflect.New(typ).Elem()
			if parse(v, text) != nil {
				continue
			}
			written := format(v)
			again := reflect.New(typ).Elem()
			if err := parse(again, written); err != nil || again.Interface() != v.Interface() {
				if _, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok || typ.Kind() != reflect.String {
					t.Errorf("%s: %q reads as %v, is written as %q and reads as %v, %v", typ, text, v, written, again, err)
				}
			}
		}
	})
}

func TestSTUNServers(t *testing.T) {
	for text, want := range map[string]string{
		"stun.example:19302": "stun.example:19302", "stun.example": "stun.example:3478", "stun:stun.example:1": "stun.example:1",
		"[2001:db8::1]:3478": "[2001:db8::1]:3478", "2001:db8::1": "[2001:db8::1]:3478", "none": "none",
		"stun.example:0": "", "stun.example:99999": "", ":3478": "", "http://stun.example": "",
	} {
		c, _, err := Load(Sources{Flags: map[string][]string{"stun-server": {text}}})
		if (err != nil) != (want == "") {
			t.Errorf("%q: %v", text, err)
		} else if err == nil && string(c.STUNServers[0]) != want {
			t.Errorf("%q: %s, want %s", text, c.STUNServers[0], want)
		}
	}
	if _, _, err := Load(Sources{Flags: map[string][]string{"stun-server": {"none", "stun.example"}}}); err == nil {
		t.Error("none beside a server is taken")
	}
	if c, _, err := Load(Sources{Flags: map[string][]string{"stun-server": {"none"}, "map-port": {"off"}}}); err != nil || len(c.STUN()) != 0 || c.MapPort != MapOff {
		t.Errorf("nobody: %v, %v, %v", c.STUN(), c.MapPort, err)
	}
}
