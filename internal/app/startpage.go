package app

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// startPage is what a person at a terminal reads when the server runs.
type startPage struct {
	Version string
	Listen  netip.AddrPort // as bound
	Addrs   []netip.Addr   // of this host, as others reach it
	Names   []string       // --name
	URL     string         // --public-url, or ""

	Setup string // token of the set-up link; "": there are users already
	Users int

	Certificate []string // how it stands with another certificate than the local authority's; none: there is no other
	Fingerprint string   // of the local authority's certificate, where that is what devices see
	TURNS       string   // "on", or why it is off
	RelayPorts  string   // "49152-65535", or "" for the sealed relay
	Public      []netip.Addr
	Outside     []string // how people outside come in, as far as that is known
	TURNListen  []string
	Bus         string // "memory", or where Redis is
	Node        string
	Nodes       int
	Metrics     string // --metrics-listen, as bound; "": nowhere
	Data        string
	ProxiesSeen int // networks of --trusted-proxy
}

// local is the URL by which this machine itself reaches the server, or "" where only another address is bound.
func (p startPage) local() string { return localURL(p.Listen) }

func localURL(listen netip.AddrPort) string {
	addr := listen.Addr()
	switch {
	case addr.IsUnspecified():
		return webURL("http", "localhost", listen.Port())
	case addr.IsLoopback():
		return webURL("http", addr.String(), listen.Port())
	}
	return ""
}

// remote are the URLs by which other devices reach it.
func (p startPage) remote() []string {
	out := remoteURLs(p.Listen, p.Names, p.Addrs)
	if p.URL == "" {
		return out
	}
	return append([]string{p.URL}, slices.DeleteFunc(out, func(u string) bool { return u == p.URL })...)
}

// remoteURLs are the URLs by which other devices reach a server that listens there, on a host of those addresses: its names
// first.
func remoteURLs(listen netip.AddrPort, names []string, addrs []netip.Addr) []string {
	var hosts []string
	if !listen.Addr().IsLoopback() {
		hosts = append(hosts, names...)
	}
	switch addr := listen.Addr(); {
	case addr.IsUnspecified():
		for _, a := range preferred(addrs) {
			if a.Is4() || addr.Is6() {
				hosts = append(hosts, a.String())
			}
		}
	case !addr.IsLoopback():
		hosts = append(hosts, addr.String())
	}
	var out []string
	for _, host := range hosts {
		out = append(out, webURL("https", host, listen.Port()))
	}
	return out
}

// webURL leaves out the port that the scheme has anyway.
func webURL(scheme, host string, port uint16) string {
	at := hostPort(host, int(port))
	if (scheme == "http" && port == 80) || (scheme == "https" && port == 443) {
		at = strings.TrimSuffix(at, ":"+strconv.Itoa(int(port)))
	}
	return scheme + "://" + at
}

// setupURLs are the one-time link, for this machine and for others: who has no screen on this one opens it elsewhere. Either
// is "" where nobody comes that way.
func (p startPage) setupURLs() (here, elsewhere string) {
	if here = p.local(); here != "" {
		here += setupPath(p.Setup)
	}
	if remote := p.remote(); len(remote) > 0 {
		elsewhere = remote[0] + setupPath(p.Setup)
	}
	return here, elsewhere
}

// setupLines are both, for people.
func (p startPage) setupLines() []string {
	here, elsewhere := p.setupURLs()
	switch {
	case here == "":
		return []string{elsewhere}
	case elsewhere == "":
		return []string{here}
	}
	return []string{here, "or, on another device:", elsewhere}
}

func setupPath(token string) string { return "/setup?token=" + token }

// caURL is where devices get the local authority. They come by plain HTTP: over https:// there would be the very warning.
func (p startPage) caURL() string {
	base := p.remote()[0]
	if p.URL == "" {
		base = "http" + strings.TrimPrefix(base, "https")
	}
	return base + pathCA
}

func (p startPage) write(w io.Writer) error {
	var t rows
	local, remote := p.local(), p.remote()
	if local != "" {
		t.add("On this machine", local)
	}
	t.add("On other devices", remote...)
	if p.Setup != "" {
		t.add("First run", append([]string{"make the first user, an administrator, within 30 minutes:"}, p.setupLines()...)...)
	}
	if len(remote) > 0 && len(p.Certificate) == 0 {
		t.add("Expect a warning", "https:// comes with a certificate that this callbox made, because browsers open a camera on https:// only. "+
			"Each device warns about it once; go on, or let the device trust this host: it is told how at", p.caURL(), "where it sees the same fingerprint:")
		t.add("", strings.Join(fingerprintGroups(p.Fingerprint), " "))
	}
	t.add("", "")
	t.add("Certificate", p.Certificate...)
	t.add("From outside", p.Outside...)
	t.add("Relay", p.relayLines()...)
	t.add("TURN over TLS", p.TURNS)
	t.add("Bus", p.busLine())
	t.add("Sign-in", p.signInLine())
	t.add("Metrics", p.metricsLine())
	t.add("Data", unbroken(p.Data))
	_, err := fmt.Fprintf(w, "\ncallbox %s is running.\n\n%s\nStop with Ctrl-C.\n\n", p.Version, t.String())
	return err
}

// writeSetup is what follows when the first set-up link has ended unused.
func (p startPage) writeSetup(w io.Writer) error {
	say := wrap("There is no user yet. A new link to make the first, an administrator, within 30 minutes:", pageWidth)
	_, err := fmt.Fprintf(w, "%s\n  %s\n\n", strings.Join(say, "\n"), strings.Join(p.setupLines(), "\n  "))
	return err
}

func (p startPage) relayLines() []string {
	port := strconv.Itoa(int(p.Listen.Port()))
	lines := []string{"on: STUN and TURN on port " + port + " (UDP, TCP)", "sealed: no further port"}
	if p.RelayPorts != "" {
		lines[1] = "relayed addresses on UDP ports " + p.RelayPorts
	}
	if len(p.TURNListen) > 0 {
		lines = append(lines, "also on "+strings.Join(p.TURNListen, ", "))
	}
	if len(p.Public) > 0 {
		var all []string
		for _, a := range p.Public {
			all = append(all, a.String())
		}
		lines = append(lines, "advertised as "+strings.Join(all, " and "))
	}
	return lines
}

func (p startPage) busLine() string {
	if p.Bus == "memory" {
		return "memory: this process alone (a cluster: --bus redis://...)"
	}
	return fmt.Sprintf("%s: node %s, %s", p.Bus, p.Node, plural(p.Nodes, "node"))
}

func (p startPage) signInLine() string {
	if p.Setup != "" {
		return "no user yet"
	}
	return plural(p.Users, "user") + " (callbox user add NAME)"
}

func (p startPage) metricsLine() string {
	if p.Metrics == "" {
		return "/metrics, for administrators"
	}
	return "http://" + p.Metrics + "/metrics"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
