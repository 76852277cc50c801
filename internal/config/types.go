package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// LogFormat is auto, text or json.
type LogFormat string

// The log formats.
const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// UnmarshalText parses a log format.
func (f *LogFormat) UnmarshalText(text []byte) error {
	return oneOf(f, text, LogAuto, LogText, LogJSON)
}

// Toggle is auto, on or off.
type Toggle string

// The values of a Toggle.
const (
	Auto Toggle = "auto"
	On   Toggle = "on"
	Off  Toggle = "off"
)

// UnmarshalText parses a toggle; true and false are on and off, as YAML writers expect.
func (t *Toggle) UnmarshalText(text []byte) error {
	switch string(text) {
	case "true", "yes":
		text = []byte(On)
	case "false", "no":
		text = []byte(Off)
	}
	return oneOf(t, text, Auto, On, Off)
}

// MapPort is auto or off.
type MapPort string

// The values of a MapPort.
const (
	MapAuto MapPort = "auto"
	MapOff  MapPort = "off"
)

// UnmarshalText parses a MapPort; false is off, as YAML writers expect.
func (m *MapPort) UnmarshalText(text []byte) error {
	if string(text) == "false" || string(text) == "no" {
		text = []byte(MapOff)
	}
	return oneOf(m, text, MapAuto, MapOff)
}

// STUNServer is a STUN server as host:port, or NoSTUN.
type STUNServer string

// NoSTUN stands alone and means that no server is asked.
const NoSTUN STUNServer = "none"

// UnmarshalText parses "host:port", "host" or "none"; a host without a port has STUN's own.
func (s *STUNServer) UnmarshalText(text []byte) error {
	if string(text) == string(NoSTUN) {
		*s = NoSTUN
		return nil
	}
	const remedy = "write HOST:PORT, as stun.example:3478, or none"
	host, port, err := net.SplitHostPort(strings.TrimPrefix(string(text), "stun:"))
	if err != nil {
		host, port = strings.Trim(strings.TrimPrefix(string(text), "stun:"), "[]"), "3478"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !hostName(host) {
		return fault("is not a STUN server", remedy)
	}
	*s = STUNServer(net.JoinHostPort(host, port))
	return nil
}

// Switch is on or off. As a flag it needs no value.
type Switch bool

// UnmarshalText parses a switch; true and false are on and off, as YAML writers expect.
func (s *Switch) UnmarshalText(text []byte) error {
	var t Toggle
	if err := t.UnmarshalText(text); err != nil || t == Auto {
		return fault("is not known", "use one of on, off")
	}
	*s = t == On
	return nil
}

// MarshalText writes on or off.
func (s Switch) MarshalText() ([]byte, error) {
	if s {
		return []byte(On), nil
	}
	return []byte(Off), nil
}

// Compat is the signaling protocol of another server.
type Compat string

// The values of Compat.
const (
	PeerJS   Compat = "peerjs"
	YWebRTC  Compat = "y-webrtc"
	Ayame    Compat = "ayame"
	Matchbox Compat = "matchbox"
)

// UnmarshalText parses the name of a protocol.
func (c *Compat) UnmarshalText(text []byte) error {
	return oneOf(c, text, PeerJS, YWebRTC, Ayame, Matchbox)
}

// WebhookURL is where events are sent to.
type WebhookURL string

// UnmarshalText checks that the URL can be posted to.
func (w *WebhookURL) UnmarshalText(text []byte) error {
	const remedy = "write scheme, host and path, as https://app.example/hooks/callbox"
	u, err := url.Parse(string(text))
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return fault("is not an http or https URL", remedy)
	case u.User != nil:
		return fault("holds a password", "leave it out: the requests are signed")
	case u.Fragment != "":
		return fault("has a fragment, which is not sent", remedy)
	}
	*w = WebhookURL(text)
	return nil
}

// Plane is how the relay serves its UDP sockets.
type Plane string

// The values of a Plane.
const (
	AutoPlane     Plane = "auto"     // the fastest this system has
	PortablePlane Plane = "portable" // the one all systems have
)

// UnmarshalText parses a plane.
func (p *Plane) UnmarshalText(text []byte) error { return oneOf(p, text, AutoPlane, PortablePlane) }

func oneOf[T ~string](into *T, text []byte, allowed ...T) error {
	names := make([]string, len(allowed))
	for i, v := range allowed {
		if string(text) == string(v) {
			*into = v
			return nil
		}
		names[i] = string(v)
	}
	return fault("is not known", "use one of "+strings.Join(names, ", "))
}

// Origin is a web origin in its canonical form: scheme://host, with the port where it is not the scheme's own.
type Origin string

// UnmarshalText parses and canonicalises an origin.
func (o *Origin) UnmarshalText(text []byte) error {
	const remedy = "write scheme and host alone, as https://app.example or http://localhost:3000"
	u, err := url.Parse(string(text))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || strings.Contains(u.Host, "*") {
		return fault("is not an origin", remedy)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fault("says more than an origin", remedy)
	}
	host := strings.ToLower(u.Host)
	if (u.Scheme == "http" && u.Port() == "80") || (u.Scheme == "https" && u.Port() == "443") {
		host = strings.TrimSuffix(host, ":"+u.Port())
	}
	*o = Origin(u.Scheme + "://" + host)
	return nil
}

// PeerRule names a network of peers: a CIDR, or "lan" for the subnets of this host's own interfaces.
type PeerRule string

// UnmarshalText parses a rule; a bare address is the network of that address alone.
func (r *PeerRule) UnmarshalText(text []byte) error {
	if string(text) == "lan" {
		*r = "lan"
		return nil
	}
	p, err := parsePrefix(string(text))
	if err != nil {
		return fault("is neither a network nor lan", "write a CIDR, as 192.168.1.0/24, or lan")
	}
	*r = PeerRule(p.String())
	return nil
}

// BusURL is Memory or the URL of a Redis.
type BusURL string

// Memory is the bus of one process alone.
const Memory BusURL = "memory"

// UnmarshalText checks the scheme and host; what the rest of the URL means is the Redis client's affair.
func (b *BusURL) UnmarshalText(text []byte) error {
	if string(text) == string(Memory) {
		*b = Memory
		return nil
	}
	const remedy = "write memory or a URL as redis://host:6379, rediss://user:password@host:6379, redis+sentinel://... or redis+cluster://..."
	u, err := url.Parse(string(text))
	if err != nil {
		return fault("is not a URL", remedy)
	}
	switch u.Scheme {
	case "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster":
	default:
		return fault("is not a bus", remedy)
	}
	if u.Host == "" {
		return fault("names no host", remedy)
	}
	*b = BusURL(text)
	return nil
}

// Masked is the URL without its password.
func (b BusURL) Masked() string {
	u, err := url.Parse(string(b))
	if err != nil {
		return mask
	}
	q := u.Query()
	for key := range q {
		if strings.Contains(strings.ToLower(key), "pass") {
			q.Set(key, mask)
		}
	}
	u.RawQuery = q.Encode()
	return u.Redacted()
}

// mask stands where a secret is not shown; it is what url.URL.Redacted writes.
const mask = "xxxxx"

// Listener is an address for TURN alone.
type Listener struct {
	Network string // udp, tcp or tls
	Addr    netip.AddrPort
}

// UnmarshalText parses "udp://host:port".
func (l *Listener) UnmarshalText(text []byte) error {
	const remedy = "write udp://, tcp:// or tls:// and an address, as tls://:5349"
	network, rest, ok := strings.Cut(string(text), "://")
	if !ok || (network != "udp" && network != "tcp" && network != "tls") {
		return fault("is not a TURN listener", remedy)
	}
	addr, err := parseAddrPort(rest)
	if err != nil {
		return err
	}
	*l = Listener{Network: network, Addr: addr}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (l Listener) MarshalText() ([]byte, error) {
	return []byte(l.Network + "://" + formatAddrPort(l.Addr)), nil
}

// TURNURL is a stun:, turn: or turns: URL (RFC 7064, RFC 7065).
type TURNURL string

// UnmarshalText checks the URL; a turn: URL without a transport is given udp, a turns: URL tcp.
func (t *TURNURL) UnmarshalText(text []byte) error {
	s, err := parseICEURL(string(text))
	if err != nil {
		return err
	}
	*t = TURNURL(s)
	return nil
}

// ICEServer is a STUN or TURN server run by others, as given to clients.
type ICEServer struct{ URL, Username, Credential string }

// UnmarshalText parses "URL" or "URL,USER,CREDENTIAL".
func (s *ICEServer) UnmarshalText(text []byte) error {
	const remedy = "write URL,USER,CREDENTIAL for a TURN server and the URL alone for a STUN server"
	parts := strings.SplitN(string(text), ",", 3)
	u, err := parseICEURL(parts[0])
	if err != nil {
		return err
	}
	out := ICEServer{URL: u}
	turn := strings.HasPrefix(u, "turn")
	switch {
	case len(parts) == 2:
		return fault("has a user but no credential", remedy)
	case len(parts) == 3:
		out.Username, out.Credential = parts[1], parts[2]
	}
	if turn && (out.Username == "" || out.Credential == "") {
		return fault("is a TURN server without user and credential, which browsers refuse", remedy)
	}
	*s = out
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (s ICEServer) MarshalText() ([]byte, error) {
	if s.Username == "" && s.Credential == "" {
		return []byte(s.URL), nil
	}
	return []byte(s.URL + "," + s.Username + "," + s.Credential), nil
}

// Masked is the server without its credential.
func (s ICEServer) Masked() string {
	if s.Credential != "" {
		s.Credential = mask
	}
	text, _ := s.MarshalText()
	return string(text)
}

func parseICEURL(s string) (string, error) {
	const remedy = "write stun:host:port, turn:host:port?transport=udp or turns:host:port?transport=tcp"
	u, err := url.Parse(s)
	if err != nil || u.Opaque == "" {
		return "", fault("is not a STUN or TURN URL", remedy)
	}
	host := u.Opaque
	if h, port, err := net.SplitHostPort(host); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fault("has no valid port", remedy)
		}
		host = h
	}
	if host == "" || strings.ContainsAny(u.Opaque, "/@ ") || strings.Contains(s, "#") {
		return "", fault("has no valid host", remedy)
	}
	bare := u.Scheme + ":" + u.Opaque // the scheme in lower case, and no question mark without a query
	switch u.Scheme {
	case "stun", "stuns":
		if u.RawQuery != "" {
			return "", fault("is a STUN URL with a query, which browsers refuse", remedy)
		}
		return bare, nil
	case "turn", "turns":
		switch u.RawQuery {
		case "transport=udp", "transport=tcp":
			return bare + "?" + u.RawQuery, nil
		case "":
			transport := "udp"
			if u.Scheme == "turns" {
				transport = "tcp"
			}
			return bare + "?transport=" + transport, nil
		}
		return "", fault("has an unknown query", remedy)
	}
	return "", fault("is not a STUN or TURN URL", remedy)
}

// problem is a fault in a value, before it is known where the value came from.
type problem struct{ text, remedy string }

func (p problem) Error() string { return p.text + "; " + p.remedy }

func fault(text, remedy string) error { return problem{text: text, remedy: remedy} }

func asProblem(err error) problem {
	var p problem
	if errors.As(err, &p) {
		return p
	}
	return problem{text: err.Error()}
}
