// Package config holds the one structure that is callbox's configuration: each
// field is a flag, a CALLBOX_* environment variable and a key of the YAML file.
// It merges the sources (flag before environment before file before default),
// parses every value once into its type, and reports every fault at once.
//
// It opens nothing but the configuration file: whether an address can be bound
// or a secret be read is found out by the packages that do so. Those that can
// tell before anything is started do it as Sources.Check, to be reported together.
package config

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// Config is the effective configuration. Its tags are the whole description of
// a setting: name is the flag and the YAML key, CALLBOX_NAME the variable, def
// the default in the syntax of the flag, group the place in the help; reload says
// that a running server can take a new value over (Reload). The type tag "raw"
// tells the command line to collect the text and leave parsing to Load.
type Config struct {
	Listen       netip.AddrPort `name:"listen" type:"raw" def:":8080" group:"general" placeholder:"ADDR" help:"Address and port of everything: HTTP, WebSocket, STUN and TURN on TCP, STUN and TURN on UDP."`
	Data         string         `name:"data" type:"raw" def:"callbox-data" group:"general" placeholder:"DIR" help:"Data directory: users, keys, secrets, certificates. Made when missing."`
	File         string         `name:"config" type:"raw" group:"general" placeholder:"FILE" help:"YAML file; its keys are the names of the flags."`
	LogFormat    LogFormat      `name:"log-format" type:"raw" def:"auto" group:"general" placeholder:"auto|text|json" help:"Log format; auto is text on a terminal and JSON elsewhere."`
	LogLevel     slog.Level     `name:"log-level" type:"raw" reload:"yes" def:"info" group:"general" placeholder:"LEVEL" help:"Least level logged: debug, info, warn or error."`
	DrainTimeout time.Duration  `name:"drain-timeout" type:"raw" reload:"yes" group:"general" placeholder:"DURATION" help:"How long running calls keep their relay while the server stops (0s alone, 30s in a cluster)."`

	DoctorEvery time.Duration `name:"doctor-every" type:"raw" def:"12h" min:"0s" max:"8760h" group:"general" placeholder:"DURATION" help:"How often the server examines itself, as callbox doctor does; also at the start and after changes. 0s: never."`

	Names         []string       `name:"name" type:"raw" group:"web" placeholder:"HOST" help:"Further host name of this server, for its certificate and its own-origin check. Repeatable."`
	PublicURL     Origin         `name:"public-url" type:"raw" reload:"yes" group:"web" placeholder:"URL" help:"URL by which people reach this server, as https://call.example, for the links it makes (computed)."`
	QR            Toggle         `name:"qr" type:"raw" def:"auto" group:"web" placeholder:"auto|off" help:"Show links as QR codes where a terminal is large enough."`
	Domains       []string       `name:"domain" type:"raw" group:"web" placeholder:"NAME|IP" help:"Public name or address of this server to get a certificate for, by ACME from Let's Encrypt; moves --listen to :443. Repeatable."`
	HTTPListen    netip.AddrPort `name:"http-listen" type:"raw" group:"web" placeholder:"ADDR" help:"Further address and port that sends people on to https:// and answers the certificate authority (off; :80 with --domain and without --listen)."`
	ACMECA        string         `name:"acme-ca" type:"raw" group:"web" placeholder:"URL" help:"ACME directory of the certificate authority (Let's Encrypt)."`
	ACMECARoot    string         `name:"acme-ca-root" type:"raw" group:"web" placeholder:"FILE" help:"PEM certificates that vouch for a private ACME server."`
	ACMEEmail     string         `name:"acme-email" type:"raw" group:"web" placeholder:"ADDRESS" help:"Where the certificate authority may write to."`
	TLSCert       string         `name:"tls-cert" type:"raw" group:"web" placeholder:"FILE" help:"PEM certificate chain to serve instead of the local one."`
	TLSKey        string         `name:"tls-key" type:"raw" group:"web" placeholder:"FILE" help:"PEM private key that belongs to the certificate."`
	TrustedProxy  []netip.Prefix `name:"trusted-proxy" type:"raw" group:"web" placeholder:"CIDR" help:"Network whose PROXY protocol and X-Forwarded-For headers are believed. Repeatable."`
	Origins       []Origin       `name:"origin" type:"raw" reload:"yes" group:"web" placeholder:"ORIGIN" help:"Origin of another web application that may use the API and callbox.js, as https://app.example. Repeatable."`
	SessionTTL    time.Duration  `name:"session-ttl" type:"raw" def:"168h" min:"1m" max:"8760h" group:"web" placeholder:"DURATION" help:"How long a login lasts."`
	MetricsListen MetricsAddr    `name:"metrics-listen" type:"raw" def:"auto" group:"web" placeholder:"auto|off|ADDR" help:"Address and port of the Prometheus metrics and of what /readyz says in full; auto is 127.0.0.1:9464 or, where that is taken, the next free port up to 9479."`

	GuestInvites         Inviters   `name:"guest-invites" type:"raw" reload:"yes" def:"users" group:"accounts" placeholder:"users|admins|off" help:"Who may make guest links on the call page; callbox invite makes them in any case."`
	OIDCIssuer           Issuer     `name:"oidc-issuer" type:"raw" group:"accounts" placeholder:"URL" help:"OpenID Connect provider at which people can log in besides those with a password here."`
	OIDCClientID         string     `name:"oidc-client-id" type:"raw" group:"accounts" placeholder:"ID" help:"What the provider calls this server; its redirect URL there is https://THIS-SERVER/login/oidc/callback."`
	OIDCClientSecretFile string     `name:"oidc-client-secret-file" type:"raw" group:"accounts" placeholder:"FILE" help:"File with the secret that the provider has issued to this server (none: a public client)."`
	OIDCScopes           []string   `name:"oidc-scopes" type:"raw" def:"openid profile email" group:"accounts" placeholder:"SCOPE" help:"Scopes that the provider is asked for. Repeatable."`
	OIDCUsernameClaims   []string   `name:"oidc-username-claim" type:"raw" def:"preferred_username email" group:"accounts" placeholder:"CLAIM" help:"Claim that names the user; of several the first that is there. Repeatable."`
	OIDCName             string     `name:"oidc-name" type:"raw" def:"single sign-on" group:"accounts" placeholder:"NAME" help:"What the button on the login page calls the provider."`
	OIDCAllow            []OIDCRule `name:"oidc-allow" type:"raw" group:"accounts" placeholder:"@DOMAIN|group:NAME" help:"Let in only whose verified mail address is in a domain, or who is in a group (everybody who can log in there). Repeatable."`

	TURNTTL               time.Duration `name:"turn-ttl" type:"raw" reload:"yes" def:"1h" min:"1m" max:"720h" group:"relay" placeholder:"DURATION" help:"Life of the TURN credentials given to clients. Calls that are up outlive them."`
	TURNSecretFile        string        `name:"turn-secret-file" type:"raw" reload:"yes" group:"relay" placeholder:"FILE" help:"TURN secrets, one a line: the first issues credentials, all verify them (DATA/turn-secret)."`
	Realm                 string        `name:"realm" type:"raw" def:"callbox" group:"relay" placeholder:"NAME" help:"STUN and TURN realm."`
	TURNS                 Toggle        `name:"turns" type:"raw" reload:"yes" def:"auto" group:"relay" placeholder:"auto|on|off" help:"Offer turns: URLs; auto does where the certificate is publicly trusted."`
	RelayPorts            PortRange     `name:"relay-ports" type:"raw" def:"49152-65535" group:"relay" placeholder:"LOW-HIGH|none" help:"UDP ports of relayed addresses; none opens no port and relays between its own clients only."`
	PublicIP              []netip.Addr  `name:"public-ip" type:"raw" reload:"yes" group:"relay" placeholder:"IP" help:"Address by which the relay is reached from outside, at most one of each family. Repeatable."`
	STUNServers           []STUNServer  `name:"stun-server" type:"raw" reload:"yes" def:"stun.cloudflare.com:3478,stun.l.google.com:19302" group:"relay" placeholder:"HOST:PORT|none" help:"STUN server that is asked for this host's public address, best two of different owners; none asks nobody. Repeatable."`
	MapPort               MapPort       `name:"map-port" type:"raw" reload:"yes" def:"auto" group:"relay" placeholder:"auto|off" help:"Have the home router forward the ports (UPnP, NAT-PMP) once there is an administrator; off asks it nothing."`
	AllowPeer             []PeerRule    `name:"allow-peer" type:"raw" reload:"yes" group:"relay" placeholder:"CIDR|lan" help:"Network that relays may reach though it is refused by default; lan is this host's own subnets. Repeatable."`
	DenyPeer              []PeerRule    `name:"deny-peer" type:"raw" reload:"yes" group:"relay" placeholder:"CIDR|lan" help:"Network that relays may not reach. The most specific rule wins, refusal on a tie. Repeatable."`
	UserQuota             int           `name:"user-quota" type:"raw" def:"100" min:"0" max:"1000000" group:"relay" placeholder:"N" help:"Allocations one user may hold at a time; 0 is no limit."`
	TotalQuota            int           `name:"total-quota" type:"raw" def:"0" min:"0" max:"1000000" group:"relay" placeholder:"N" help:"Allocations of all users together; 0, the default, is as many as there are relay ports."`
	UserBandwidth         BitRate       `name:"user-bandwidth" type:"raw" def:"0" group:"relay" placeholder:"BITS" help:"Bits per second relayed for one user, as 20M; 0, the default, is no limit."`
	RelayBandwidth        BitRate       `name:"relay-bandwidth" type:"raw" def:"0" group:"relay" placeholder:"BITS" help:"Bits per second relayed in total, as 1G; 0, the default, is no limit."`
	UnauthRate            int           `name:"unauth-rate" type:"raw" def:"2000" min:"1" max:"10000000" group:"relay" placeholder:"N" help:"Unauthenticated TURN answers a second for each /24 (IPv6 /56); twice as many at once."`
	ConnectionsPerAddress int           `name:"connections-per-address" type:"raw" def:"20000" min:"1" max:"10000000" group:"relay" placeholder:"N" help:"TCP connections held by one address at a time."`
	RelayPlane            Plane         `name:"relay-plane" type:"raw" def:"auto" group:"relay" placeholder:"auto|portable" help:"How UDP sockets are served: auto takes the fastest way of this system; portable, for diagnosis, the one that all have."`
	TURNListen            []Listener    `name:"turn-listen" type:"raw" group:"relay" placeholder:"URL" help:"Further address for TURN alone, as udp://:3478, tcp://:3478 or tls://:5349. Repeatable."`
	TURNHost              string        `name:"turn-host" type:"raw" reload:"yes" group:"relay" placeholder:"HOST" help:"Name or address of this node in the TURN URLs it gives out (the one the client used)."`
	TURNURLs              []TURNURL     `name:"turn-url" type:"raw" reload:"yes" group:"relay" placeholder:"URL" help:"TURN URL to give out instead of the computed ones, where a load balancer stands in front. Repeatable."`
	ICEServers            []ICEServer   `name:"ice-server" type:"raw" reload:"yes" group:"relay" placeholder:"URL[,USER,CREDENTIAL]" help:"STUN or TURN server of others to add to what clients get. Repeatable."`

	MessageRate  int      `name:"message-rate" type:"raw" def:"1000" min:"1" max:"1000000" group:"signaling" placeholder:"N" help:"Messages a second from one WebSocket connection."`
	MessageBytes ByteSize `name:"message-bytes" type:"raw" def:"4MB" min:"64KiB" max:"1GiB" group:"signaling" placeholder:"SIZE" help:"Bytes a second from one WebSocket connection."`
	MaxPeers     int      `name:"max-peers" type:"raw" def:"50" min:"2" max:"10000" group:"signaling" placeholder:"N" help:"Peers in one room. The call page itself is a mesh of at most 8."`

	ConnectionsPerUser int          `name:"connections-per-user" type:"raw" def:"100" min:"1" max:"1000000" group:"signaling" placeholder:"N" help:"WebSocket connections one logged-in user may hold on this node at a time."`
	Webhooks           []WebhookURL `name:"webhook" type:"raw" group:"signaling" placeholder:"URL" help:"http or https URL that is told, by signed requests, who comes to rooms and goes. Repeatable."`
	WebhookKey         string       `name:"webhook-key" type:"raw" group:"signaling" placeholder:"ID" help:"Id of the API key that signs webhook requests (the oldest key)."`

	Compat     []Compat `name:"compat" type:"raw" group:"signaling" placeholder:"NAME" help:"Protocol of another server whose clients are served too: peerjs, y-webrtc, ayame or matchbox. Repeatable."`
	CompatOpen Switch   `name:"compat-open" type:"raw" def:"off" group:"signaling" placeholder:"on|off" help:"Admit anybody from any origin to those protocols, without a token and without TURN. For development."`

	Bus               BusURL `name:"bus" type:"raw" def:"memory" group:"cluster" placeholder:"memory|URL" help:"What nodes share: memory for one process alone, or the URL of a Redis, as redis://host:6379."`
	BusPrefix         string `name:"bus-prefix" type:"raw" def:"callbox" group:"cluster" placeholder:"NAME" help:"Prefix of keys and channels in Redis, so that several clusters can share one."`
	NodeName          string `name:"node-name" type:"raw" group:"cluster" placeholder:"NAME" help:"Name of this node, for people (the host's name)."`
	ClusterSecretFile string `name:"cluster-secret-file" type:"raw" group:"cluster" placeholder:"FILE" help:"Secret that all nodes share; its first line seals what they keep in Redis (the first line of --turn-secret-file)."`
}

// HostNames are the names of this server: those that it has certificates for, then the further ones.
func (c Config) HostNames() []string { return slices.Concat(c.Domains, c.Names) }

// Clustered says whether this process is a node among others.
func (c Config) Clustered() bool { return c.Bus != Memory }

// STUN are the servers to ask for the public address, as host:port.
func (c Config) STUN() []string {
	var out []string
	for _, s := range c.STUNServers {
		if s != NoSTUN {
			out = append(out, string(s))
		}
	}
	return out
}

// Default is the configuration with nothing given.
func Default() Config {
	c, _, err := Load(Sources{})
	if err != nil {
		panic("config: the defaults are faulty: " + err.Error())
	}
	return c
}
