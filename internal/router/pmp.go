package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
)

// Bounds of one exchange. Routers answer within milliseconds; a request is repeated after 250 and 750 ms.
const (
	pmpFindTimeout = time.Second
	pmpTimeout     = 2 * time.Second
)

// pmp is a router that speaks NAT-PMP. It is used by one goroutine at a time.
type pmp struct {
	gateway, local netip.Addr

	epoch  uint32    // seconds since the router lost its state, as it said
	at     time.Time // then; zero: it has said nothing yet
	forgot bool      // it has lost it since
}

func findPMP(ctx context.Context, gateway, local netip.Addr) (protocol, error) {
	p := &pmp{gateway: gateway, local: local}
	ctx, cancel := context.WithTimeout(ctx, pmpFindTimeout)
	defer cancel()
	if _, err := p.client(ctx).GetExternalAddress(); err != nil {
		if err = pmpError(err); !errors.Is(err, ErrNoAddress) {
			return nil, err
		}
	}
	return p, nil
}

// client has what is left of the context's time.
func (p *pmp) client(ctx context.Context) *natpmp.Client {
	timeout := pmpTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(min(timeout, time.Until(deadline)), time.Millisecond)
	}
	return natpmp.NewClientWithLocalAndTimeout(p.gateway.AsSlice(), p.local.AsSlice(), timeout)
}

func (*pmp) kind() Kind   { return NATPMP }
func (*pmp) name() string { return "" }

func (p *pmp) external(ctx context.Context) (netip.Addr, error) {
	answer, err := p.client(ctx).GetExternalAddress()
	if err != nil {
		return netip.Addr{}, pmpError(err)
	}
	p.heard(answer.SecondsSinceStartOfEpoc)
	return netip.AddrFrom4(answer.ExternalIPAddress), nil
}

func (p *pmp) add(ctx context.Context, port Port, lease time.Duration, now time.Time) (Mapping, error) {
	if err := ctx.Err(); err != nil {
		return Mapping{}, err
	}
	answer, err := p.client(ctx).AddPortMappingWithDuration(port.Protocol, int(port.Number), int(port.Number), lease)
	switch {
	case err != nil:
		return Mapping{}, pmpError(err)
	case answer.InternalPort != port.Number || answer.PortMappingLifetimeInSeconds == 0:
		return Mapping{}, fmt.Errorf("%w: its answer is about another mapping", ErrRefused)
	case answer.MappedExternalPort != port.Number:
		// It offers another port instead of one that is taken. Clients would not find that, so it goes back.
		if err := p.remove(ctx, port); err != nil {
			return Mapping{}, fmt.Errorf("%w; and the port it offers instead was not given back: %w", ErrConflict, err)
		}
		return Mapping{}, fmt.Errorf("%w: it offers %d instead", ErrConflict, answer.MappedExternalPort)
	}
	// An absurd lifetime is not believed beyond what was asked for.
	granted := min(time.Duration(answer.PortMappingLifetimeInSeconds)*time.Second, lease)
	return Mapping{Port: port, Until: now.Add(granted)}, nil
}

// remove is a mapping with no lifetime, RFC 6886 section 3.4. It cannot concern another host's.
func (p *pmp) remove(ctx context.Context, port Port) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := p.client(ctx).AddPortMapping(port.Protocol, int(port.Number), 0, 0)
	return pmpError(err)
}

// heard compares the router's clock with ours: it begins anew when the router forgets, RFC 6886 section 3.6.
func (p *pmp) heard(epoch uint32) {
	now := time.Now()
	least := time.Duration(p.epoch)*time.Second + now.Sub(p.at)*7/8 - 2*time.Second
	p.forgot = p.forgot || !p.at.IsZero() && time.Duration(epoch)*time.Second < least
	p.epoch, p.at = epoch, now
}

func (p *pmp) lost(ctx context.Context, _ Port) bool {
	_, _ = p.external(ctx)
	was := p.forgot
	p.forgot = false
	return was
}

// pmpError names the result codes of RFC 6886 section 3.5.
func pmpError(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "result code 2"):
		return fmt.Errorf("%w: NAT-PMP is switched off in its settings", ErrRefused)
	case strings.Contains(text, "result code 3"):
		return ErrNoAddress
	case strings.Contains(text, "result code 4"):
		return ErrFull
	case strings.Contains(text, "result code"):
		return fmt.Errorf("%w: %s", ErrRefused, text)
	case strings.Contains(text, "refused"), strings.Contains(text, "Timed out"):
		return errors.New("no answer")
	}
	return err
}
