package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"callbox/internal/stunaddr"

	"github.com/pion/stun/v2"
)

// tries are the waits for an answer before each resending (RFC 8489 section 6.2.1, cut short: what has not come after
// three seconds is of no use to a call).
var tries = [...]time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond}

var errSilent = errors.New("no answer")

// askBinding asks one STUN server for this socket's address as it sees it.
func askBinding(ctx context.Context, at netip.AddrPort) (netip.AddrPort, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", at.String())
	if err != nil {
		return netip.AddrPort{}, cause(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	request, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("STUN request: %w", err)
	}
	buffer := make([]byte, 1500)
	for _, wait := range tries {
		if _, err = conn.Write(request.Raw); err != nil {
			continue // a refusal of the last one, perhaps
		}
		if err = conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return netip.AddrPort{}, err
		}
		var n int
		if n, err = conn.Read(buffer); err != nil {
			continue
		}
		answer := &stun.Message{Raw: buffer[:n]}
		if answer.Decode() != nil || answer.TransactionID != request.TransactionID {
			continue
		}
		addr, err := stunaddr.XOR(answer, stun.AttrXORMappedAddress)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("STUN answer: %w", err)
		}
		return addr, nil
	}
	var timeout net.Error
	if ctx.Err() != nil || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		return netip.AddrPort{}, errSilent
	}
	return netip.AddrPort{}, cause(err)
}

// connects opens a TCP connection and closes it.
func connects(ctx context.Context, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		if ctx.Err() != nil {
			return errSilent
		}
		return cause(err)
	}
	return conn.Close()
}
