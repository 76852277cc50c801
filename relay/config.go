package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Errors of this package.
var (
	ErrConfig = errors.New("relay configuration")
	ErrClosed = errors.New("relay is closed")
)

// Owner says whose an allocation is, in opaque tags. Quotas count by User, or by the whole user name where User is empty;
// Server.Revoke matches either.
type Owner struct{ User, Session string }

// PortRange is where relayed transport addresses get their ports from, both ends included. The zero range makes a sealed
// relay: addresses are virtual, no socket is opened, and packets pass only between allocations of the same server.
type PortRange struct{ Low, High uint16 }

func (r PortRange) sealed() bool { return r == PortRange{} }

// Quota bounds what clients may take. A zero field means no bound, except where a default is named.
type Quota struct {
	Allocations int // of one owner; past it 486
	Total       int // of the server; past it 508
	Permissions int // of one allocation, and as many channels; past it 508; 0: 256

	UserBitrate  int64 // relayed bits a second of one owner, both directions together; what is over is dropped and counted
	TotalBitrate int64 // relayed bits a second of the server

	UnauthRate            int // answers a second to unauthenticated requests of one source prefix (/24, /56); 0: 2000; negative: no bound
	UnauthBurst           int // answers at once; 0: twice UnauthRate
	ConnectionsPerAddress int // streams of one address (IPv6: /64); 0: 20000
}

// KeysFunc gives the candidate keys MD5(username ":" realm ":" password) of a user, newest secret first, and whose the user
// name is. allocate is false for requests on what exists already, which outlives its credential's expiry. It is called for
// every authentication, from several goroutines, with whatever a stranger sent as user name.
type KeysFunc func(username, realm string, allocate bool) (keys [][]byte, owner Owner, err error)

// Config is what a Server needs. Keys is required.
type Config struct {
	// UDP are the addresses to listen on. An unspecified IPv6 address means both families where the host has IPv6. Port 0
	// lets the system choose. Empty: streams only.
	UDP []netip.AddrPort
	// Handed are bound sockets to serve before UDP; Listen takes them over, and closes them where it fails.
	Handed []*net.UDPConn
	// Public are the addresses that clients are told, at most one of each family. For a family without one it is the host's
	// primary address, or loopback on a host that has nothing else and for clients that come over loopback.
	Public []netip.Addr
	Ports  PortRange
	Realm  string // "": callbox
	Keys   KeysFunc
	// AllowPeer says whether relays may send to an address; nil is the default policy, which denies everything that is not
	// plainly on the public Internet. Another allocation of this server is always allowed. An IPv4 address in IPv6 clothes must
	// be allowed both as it is written and as IPv4.
	AllowPeer func(netip.AddrPort) bool
	Own       []netip.AddrPort // addresses and ports that no rule opens; an unspecified address stands for every address of the host
	Quota     Quota
	Log       *slog.Logger // nil: none
	// Portable makes every UDP socket one of the net package with a goroutine of its own, as on systems where nothing faster is known.
	// It is there to tell where a fault lies.
	Portable bool

	timing timing            // for tests; zero fields get their defaults
	lack   func(family) bool // for tests: families the host is to be without
}

// timing are the deadlines of streams and nonces.
type timing struct {
	firstRequest time.Duration // a new stream's first whole message
	idle         time.Duration // a stream without an allocation
	write        time.Duration // one write to a stream
	nonce        time.Duration // how long a nonce is good
	reservation  time.Duration // RFC 8656 section 7.2 asks for at least 30 seconds
}

const (
	defaultRealm       = "callbox"
	defaultPermissions = 256
	defaultUnauthRate  = 2000
	defaultConnections = 20000
)

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.timing.firstRequest, 10*time.Second)
	def(&c.timing.idle, time.Minute)
	def(&c.timing.write, 10*time.Second)
	def(&c.timing.nonce, time.Hour)
	def(&c.timing.reservation, 30*time.Second)
	if c.Realm == "" {
		c.Realm = defaultRealm
	}
	if c.Quota.Permissions == 0 {
		c.Quota.Permissions = defaultPermissions
	}
	if c.Quota.UnauthRate == 0 {
		c.Quota.UnauthRate = defaultUnauthRate
	}
	if c.Quota.UnauthBurst == 0 {
		c.Quota.UnauthBurst = 2 * c.Quota.UnauthRate
	}
	if c.Quota.ConnectionsPerAddress == 0 {
		c.Quota.ConnectionsPerAddress = defaultConnections
	}
	if c.AllowPeer == nil {
		c.AllowPeer = new(Policy).Allow
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	if c.Keys == nil {
		faults = append(faults, fmt.Errorf("%w: Keys is missing", ErrConfig))
	}
	if c.Ports.Low > c.Ports.High || (c.Ports.Low == 0) != (c.Ports.High == 0) {
		faults = append(faults, fmt.Errorf("%w: port range %d-%d; give the lower end first, or none at all for a sealed relay",
			ErrConfig, c.Ports.Low, c.Ports.High))
	}
	if len(c.Realm) > 127 {
		faults = append(faults, fmt.Errorf("%w: realm of %d bytes; at most 127", ErrConfig, len(c.Realm)))
	}
	for i, a := range c.UDP {
		if !a.IsValid() {
			faults = append(faults, fmt.Errorf("%w: UDP address %d is not an address and port", ErrConfig, i))
		}
	}
	return errors.Join(append(faults, checkPublic(c.Public))...)
}

// checkPublic refuses a list that is not at most one usable address of each family.
func checkPublic(list []netip.Addr) error {
	var seen [2]bool
	for _, a := range list {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("%w: public address %v cannot be reached by anyone", ErrConfig, a)
		}
		f := familyOf(a)
		if seen[f] {
			return fmt.Errorf("%w: more than one public address of a family; give one IPv4 and one IPv6 address", ErrConfig)
		}
		seen[f] = true
	}
	return nil
}
