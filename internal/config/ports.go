package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MetricsAddr is where metrics are answered; the zero value means nowhere.
type MetricsAddr struct {
	Auto bool           // on loopback, at a port that is free
	Addr netip.AddrPort // where it is not Auto
}

// Off says that no address is to be opened.
func (m MetricsAddr) Off() bool { return m == MetricsAddr{} }

// UnmarshalText parses "auto", "off" or an address and port.
func (m *MetricsAddr) UnmarshalText(text []byte) error {
	switch string(text) {
	case "auto":
		*m = MetricsAddr{Auto: true}
		return nil
	case "off", "false", "no":
		*m = MetricsAddr{}
		return nil
	}
	addr, err := parseAddrPort(string(text))
	if err != nil {
		return fault("is not an address with a port", "write auto, off, or an IP address and a port, as 127.0.0.1:9464")
	}
	*m = MetricsAddr{Addr: addr}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (m MetricsAddr) MarshalText() ([]byte, error) {
	switch {
	case m.Off():
		return []byte("off"), nil
	case m.Auto:
		return []byte("auto"), nil
	}
	return []byte(formatAddrPort(m.Addr)), nil
}

// PortRange is an inclusive range of ports; the zero value means none.
type PortRange struct{ Low, High uint16 }

// None says that no port may be opened.
func (p PortRange) None() bool { return p == PortRange{} }

// UnmarshalText parses "low-high", one port, or "none".
func (p *PortRange) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "none" {
		*p = PortRange{}
		return nil
	}
	const remedy = "write LOW-HIGH with ports from 1 to 65535, as 49152-65535, or none"
	low, high, ranged := strings.Cut(s, "-")
	if !ranged {
		high = low
	}
	l, errLow := strconv.ParseUint(strings.TrimSpace(low), 10, 16)
	h, errHigh := strconv.ParseUint(strings.TrimSpace(high), 10, 16)
	switch {
	case errLow != nil || errHigh != nil || l == 0:
		return fault("is not a range of ports", remedy)
	case l > h:
		return fault("ends before it starts", remedy)
	}
	*p = PortRange{Low: uint16(l), High: uint16(h)}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (p PortRange) MarshalText() ([]byte, error) {
	if p.None() {
		return []byte("none"), nil
	}
	return fmt.Appendf(nil, "%d-%d", p.Low, p.High), nil
}
