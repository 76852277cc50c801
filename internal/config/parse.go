package config

import (
	"encoding"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// ByteSize is a number of bytes.
type ByteSize int64

// BitRate is a number of bits per second.
type BitRate int64

var (
	byteUnits = []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}
	bitUnits  = []unit{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}}
)

type unit struct {
	name string
	size int64
}

// UnmarshalText parses a size such as 4MB or 256KiB; a bare number counts bytes.
func (b *ByteSize) UnmarshalText(text []byte) error {
	n, ok := parseUnits(string(text), byteUnits)
	if !ok {
		return fault("is not a size", "write a number of bytes, or one with kB, MB, GB, KiB, MiB or GiB, as 4MB")
	}
	*b = ByteSize(n)
	return nil
}

// MarshalText writes the largest unit that divides the size.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(formatUnits(int64(b), byteUnits)), nil }

// UnmarshalText parses a rate such as 20M; a bare number counts bits per second.
func (b *BitRate) UnmarshalText(text []byte) error {
	n, ok := parseUnits(strings.TrimSuffix(string(text), "bit/s"), bitUnits)
	if !ok {
		return fault("is not a bit rate", "write bits per second, or a number with k, M or G, as 20M; 0 is no limit")
	}
	*b = BitRate(n)
	return nil
}

// MarshalText writes the largest unit that divides the rate.
func (b BitRate) MarshalText() ([]byte, error) { return []byte(formatUnits(int64(b), bitUnits)), nil }

func parseUnits(s string, units []unit) (int64, bool) {
	size := int64(1)
	for _, u := range units {
		if len(s) > len(u.name) && strings.EqualFold(s[len(s)-len(u.name):], u.name) {
			size, s = u.size, strings.TrimSpace(s[:len(s)-len(u.name)])
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || int64(n) > (1<<63-1)/size {
		return 0, false
	}
	return int64(n) * size, true
}

func formatUnits(n int64, units []unit) string {
	for _, u := range units {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// parse sets one value (a field, or an element of a list) from its text.
func parse(into reflect.Value, text string) error {
	switch p := into.Addr().Interface().(type) {
	case *netip.AddrPort:
		a, err := parseAddrPort(text)
		*p = a
		return err
	case *netip.Prefix:
		a, err := parsePrefix(text)
		if err != nil {
			return fault("is not a network", "write a CIDR, as 10.0.0.0/8 or fd00::/8")
		}
		*p = a
		return nil
	case *netip.Addr:
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.IsUnspecified() {
			return fault("is not an IP address", "write an address without port, as 203.0.113.7")
		}
		*p = a.Unmap()
		return nil
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fault("is not a duration", "write a number with a unit, as 90s, 30m or 12h")
		}
		*p = d
		return nil
	case *slog.Level:
		switch strings.ToLower(text) {
		case "debug", "info", "warn", "error":
			return p.UnmarshalText([]byte(text))
		}
		return fault("is not a log level", "use one of debug, info, warn, error")
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fault("is not a whole number", "write digits alone, as 100")
		}
		*p = n
		return nil
	case *string:
		*p = text
		return nil
	}
	return fmt.Errorf("has no parser for %s", into.Type())
}

// format is the inverse of parse.
func format(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case netip.AddrPort:
		return formatAddrPort(x)
	case time.Duration:
		return formatDuration(x)
	case slog.Level:
		return strings.ToLower(x.String())
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
	return fmt.Sprint(v.Interface())
}

func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parseAddrPort reads host:port. An empty host is every address of both
// families, which is written as [::]; localhost is 127.0.0.1.
func parseAddrPort(s string) (netip.AddrPort, error) {
	const remedy = "write an IP address and a port, as :8080, 127.0.0.1:8080 or [::1]:8080"
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fault("is not an address with a port", remedy)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fault("has no valid port", remedy)
	}
	var addr netip.Addr
	switch host {
	case "", "*":
		addr = netip.IPv6Unspecified()
	case "localhost":
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if addr, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, fault("has a host that is not an IP address", remedy)
		}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}

func formatAddrPort(a netip.AddrPort) string {
	switch {
	case !a.IsValid():
		return ""
	case a.Addr() == netip.IPv6Unspecified():
		return fmt.Sprintf(":%d", a.Port())
	}
	return a.String()
}

// parsePrefix reads a CIDR, or an address as the network of itself alone.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return a.Unmap().WithZone("").Prefix(a.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
