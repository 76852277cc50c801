package config

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// clusterDrain is how long the relay lives on by default while a cluster node stops.
const clusterDrain = 30 * time.Second

// finish computes the defaults that depend on other settings or on the host.
func finish(c *Config, origins Origins) {
	if origins["drain-timeout"] == fromDefault && c.Clustered() {
		c.DrainTimeout = clusterDrain
	}
	for i, name := range c.Domains {
		c.Domains[i] = strings.ToLower(strings.TrimSuffix(name, "."))
		if addr, err := netip.ParseAddr(name); err == nil {
			c.Domains[i] = addr.Unmap().String()
		}
	}
	if len(c.Domains) > 0 && origins["listen"] == fromDefault {
		// Where authorities and browsers come to.
		c.Listen = netip.AddrPortFrom(c.Listen.Addr(), 443)
		if origins["http-listen"] == fromDefault {
			c.HTTPListen = netip.AddrPortFrom(c.Listen.Addr(), 80)
		}
	}
	if c.NodeName == "" {
		c.NodeName = "callbox"
		if host, err := os.Hostname(); err == nil && nodeName(host) {
			c.NodeName = host
		}
	}
}

// check finds faults that no value shows by itself. A setting that has a fault already is not checked again.
func check(c Config, origins Origins, found Faults) Faults {
	var out Faults
	add := func(key, problem, remedy string) {
		for _, f := range found {
			if f.Key == key {
				return
			}
		}
		out = append(out, Fault{Key: key, Source: origins[key], Problem: problem, Remedy: remedy})
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		missing, present := "tls-key", "tls-cert"
		if c.TLSCert == "" {
			missing, present = present, missing
		}
		add(present, "is given without "+missing, "give both, or neither for the certificate that callbox makes")
	}
	for _, v6 := range []bool{false, true} {
		if count(c.PublicIP, func(a netip.Addr) bool { return a.Is6() == v6 }) > 1 {
			add("public-ip", "names two addresses of one family", "give at most one IPv4 and one IPv6 address")
		}
	}
	if slices.Contains(c.STUNServers, NoSTUN) && len(c.STUNServers) > 1 {
		add("stun-server", "names servers and none", "give either")
	}
	for _, name := range c.Names {
		if !hostName(name) {
			add("name", "“"+clip(name)+"” is not a host name", "write a name or an address without scheme and port, as call.example")
		}
	}
	checkAccounts(c, add)
	checkACME(c, add)
	if c.TURNHost != "" && !hostName(c.TURNHost) {
		add("turn-host", "“"+clip(c.TURNHost)+"” is not a host name", "write a name or an address without scheme and port, as turn1.example")
	}
	if !realm(c.Realm) {
		add("realm", "is not a realm", "use 1 to 64 printable ASCII characters without colon and quotation mark")
	}
	if !nodeName(c.NodeName) {
		add("node-name", "is not a node name", "use 1 to 63 letters, digits, hyphens and dots, beginning with a letter or digit")
	}
	if !regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`).MatchString(c.BusPrefix) {
		add("bus-prefix", "is not a prefix", "use 1 to 64 letters, digits, dots, colons, hyphens and underscores")
	}
	if c.Clustered() && c.TURNSecretFile == "" && c.ClusterSecretFile == "" {
		add("bus", "makes this process a node of a cluster, which needs a secret that all nodes share",
			"make one with: openssl rand -base64 32 > cluster-secret; chmod 600 cluster-secret; give it to every node as --cluster-secret-file")
	}
	if c.DoctorEvery > 0 && c.DoctorEvery < time.Minute {
		add("doctor-every", "is less than a minute", "give a minute or more, or 0s for never")
	}
	if m := c.MetricsListen.Addr; m.IsValid() && m.Port() != 0 && m == c.Listen {
		add("metrics-listen", "is the same as listen", "give the metrics a port of their own")
	}
	for _, l := range c.TURNListen {
		meets := l.Addr.Addr().IsUnspecified() || c.Listen.Addr().IsUnspecified() || l.Addr.Addr() == c.Listen.Addr()
		if l.Addr.Port() != 0 && l.Addr.Port() == c.Listen.Port() && meets {
			add("turn-listen", "has the port of listen, which answers TURN too", "leave it out, or give it a port of its own, as udp://:3478")
		}
	}
	if c.CompatOpen && len(c.Compat) == 0 {
		add("compat-open", "opens no protocol, because --compat names none", "name them, as --compat peerjs, or leave it out")
	}
	return out
}

// checkACME finds the faults of --domain and of what belongs to it.
func checkACME(c Config, add func(key, problem, remedy string)) {
	for _, name := range c.Domains {
		if !hostName(name) {
			add("domain", "“"+clip(name)+"” is not a host name", "write a name or an address without scheme and port, as call.example")
		}
	}
	if len(c.Domains) > 0 && c.TLSCert != "" {
		add("domain", "gets a certificate, and tls-cert gives one", "give one of the two")
	}
	if len(c.Domains) == 0 {
		for _, setting := range []struct{ key, value string }{{"acme-ca", c.ACMECA}, {"acme-ca-root", c.ACMECARoot}, {"acme-email", c.ACMEEmail}} {
			if setting.value != "" {
				add(setting.key, "is given without domain", "give the name that a certificate is wanted for as domain")
			}
		}
	}
	if u, err := url.Parse(c.ACMECA); c.ACMECA != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		add("acme-ca", "is not an https URL", "write the URL of an ACME directory, as https://acme-v02.api.letsencrypt.org/directory")
	}
	if c.ACMEEmail != "" && !regexp.MustCompile(`^[^\s@,]+@[^\s@,]+$`).MatchString(c.ACMEEmail) {
		add("acme-email", "is not an e-mail address", "write one, as admin@call.example")
	}
	if c.HTTPListen.IsValid() && c.HTTPListen.Port() != 0 && c.HTTPListen.Port() == c.Listen.Port() {
		add("http-listen", "has the port of listen, which answers http:// too", "leave it out, or give it a port of its own, as :80")
	}
}

func count[T any](list []T, match func(T) bool) (n int) {
	for _, v := range list {
		if match(v) {
			n++
		}
	}
	return n
}

func nodeName(s string) bool {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$`).MatchString(s)
}

func hostName(s string) bool {
	if net.ParseIP(s) != nil {
		return true
	}
	return len(s) <= 253 && regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?$`).MatchString(s)
}

func realm(s string) bool {
	return regexp.MustCompile(`^[ !#-9;-~]{1,64}$`).MatchString(s)
}
