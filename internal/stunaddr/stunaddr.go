// Package stunaddr reads addresses out of the STUN messages of others.
package stunaddr

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/pion/stun/v2"
)

var errAddress = errors.New("the address is malformed")

// XOR is the address in an attribute of the form of XOR-MAPPED-ADDRESS (RFC 8489 section 14.2), an IPv4 one in four bytes. An
// attribute that is missing or malformed is an error.
func XOR(m *stun.Message, attribute stun.AttrType) (netip.AddrPort, error) {
	value, err := m.Get(attribute)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%v: %w", attribute, err)
	}
	// pion/stun panics on a value of less than two bytes and takes half an address for a whole one.
	const head = 4
	if len(value) < head {
		return netip.AddrPort{}, fmt.Errorf("%v: %w", attribute, errAddress)
	}
	var a stun.XORMappedAddress
	if err := a.GetFromAs(m, attribute); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%v: %w", attribute, err)
	}
	addr, ok := netip.AddrFromSlice(a.IP)
	if !ok || len(value) != head+len(a.IP) || a.Port <= 0 || a.Port > 0xffff {
		return netip.AddrPort{}, fmt.Errorf("%v: %w", attribute, errAddress)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(a.Port)), nil
}
