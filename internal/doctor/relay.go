package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/pion/stun/v2"
)

// Credential is a short-lived TURN credential of the server's own.
type Credential struct {
	Username, Password, Realm string
}

// RelayTrip is what came of sending through the relay and back.
type RelayTrip struct {
	Network string // "udp", "tcp" or "tls"
	Port    uint16
	// At the public address, where there is one.
	Public    netip.AddrPort
	PublicErr error
	Behind    bool // the public address is not this machine's own
	CGNAT     bool // nor the router's
	Mapped    bool // the router says that it forwards the port
	// At an address of this machine, where there is no public one or that failed.
	Local    netip.AddrPort
	LocalErr error
	Took     time.Duration // there and back, where it worked
}

func tripName(network string) string {
	return map[string]string{"udp": NameRelayUDP, "tcp": NameRelayTCP, "tls": NameRelayTLS}[network]
}

// relayTrip judges whether media gets through the relay.
func relayTrip(r RelayTrip) Check {
	name := tripName(r.Network)
	transport := "TCP"
	if r.Network == "udp" {
		transport = "UDP"
	}
	switch {
	case r.Public.IsValid() && r.PublicErr == nil:
		return good(name, fmt.Sprintf("two allocations at %v reached each other, there and back in %s", r.Public, brief(r.Took)))
	case r.LocalErr != nil:
		return failure(name, fmt.Sprintf("at %v: %v", r.Local, r.LocalErr), relayRemedy(r.LocalErr, transport, r.Port))
	case r.Public.IsValid() && r.Behind:
		saw := fmt.Sprintf("works at %v (%s), but not at %v from here: %v", r.Local, brief(r.Took), r.Public, r.PublicErr)
		if r.CGNAT {
			return warning(name, saw, "see "+NameCGNAT)
		}
		if r.Mapped {
			return warning(name, saw, forwardedButSilent)
		}
		return warning(name, saw,
			fmt.Sprintf("forward %s port %d in the router; where that is done, it may just not lead back in: callbox doctor --phone tries from outside", transport, r.Port))
	case r.Public.IsValid():
		return failure(name, fmt.Sprintf("works at %v, but not at %v: %v", r.Local, r.Public, r.PublicErr),
			fmt.Sprintf("let the firewall pass %s port %d", transport, r.Port))
	}
	return good(name, fmt.Sprintf("two allocations at %v reached each other, there and back in %s; no public address to try", r.Local, brief(r.Took)))
}

func relayRemedy(err error, transport string, port uint16) string {
	var refusal *refusal
	if errors.As(err, &refusal) {
		switch refusal.code {
		case stun.CodeUnauthorized, stun.CodeBadRequest:
			return "see " + NameClock + "; after a change of --turn-secret-file run: callbox reload"
		case stun.CodeAllocQuotaReached, stun.CodeInsufficientCapacity:
			return "all relay ports or quotas are taken: widen --relay-ports, or raise --user-quota and --total-quota"
		}
		return "look at the server's log"
	}
	return fmt.Sprintf("let the firewall of this machine pass %s port %d", transport, port)
}

// tripTime bounds one round trip, with everything before it.
const tripTime = 6 * time.Second

// tryRelay makes two allocations over a transport, sends from one to the other and back, and returns the time of that. Both
// ends are worked by this goroutine alone.
func tryRelay(ctx context.Context, network string, at netip.AddrPort, credential func() Credential) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, tripTime)
	defer cancel()
	var ends [2]*turnEnd
	for i := range ends {
		end, err := allocate(ctx, network, at, credential())
		if err != nil {
			return 0, err
		}
		defer end.close()
		ends[i] = end
	}
	here, there := ends[0], ends[1]
	for _, pair := range [][2]*turnEnd{{here, there}, {there, here}} {
		if err := pair[0].permit(pair[1].relayed); err != nil {
			return 0, err
		}
	}
	word := make([]byte, 24)
	_, _ = rand.Read(word)
	for range tries { // a datagram may be lost
		sent := time.Now()
		err := pass(here, there, word)
		if err == nil {
			err = pass(there, here, word)
		}
		if err == nil {
			return time.Since(sent), nil
		}
		if !errors.Is(err, errSilent) || ctx.Err() != nil {
			return 0, err
		}
	}
	return 0, errors.New("allocations are made, but nothing gets from one to the other")
}

// pass sends a word through both relays.
func pass(from, to *turnEnd, word []byte) error {
	if err := from.send(to.relayed, word); err != nil {
		return err
	}
	deadline := time.Now().Add(time.Second)
	for {
		got, err := to.receive(deadline)
		if err != nil {
			return err
		}
		if bytes.Equal(got, word) {
			return nil
		}
	}
}
