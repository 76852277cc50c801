package relay

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestLoopbackIsNobodysIPv6: where a host has IPv6 only for itself, others are told that it has none.
func TestLoopbackIsNobodysIPv6(t *testing.T) {
	now := time.Now()
	for _, row := range []struct {
		host   string // the primary address of each family
		family family
		client string // the address by which the client came
		want   string // "": none
	}{
		{"192.0.2.2 ::1", six, "192.0.2.2", ""},
		{"192.0.2.2 ::1", six, "127.0.0.1", "::1"},
		{"192.0.2.2 ::1", four, "192.0.2.2", "192.0.2.2"},
		{"192.0.2.2 2001:db8::2", six, "192.0.2.2", "2001:db8::2"},
		{"127.0.0.1 2001:db8::2", four, "2001:db8::2", "127.0.0.1"},
		{"127.0.0.1 ::1", six, "0.0.0.0", "::1"}, // a connection that is not IP
	} {
		h := &host{at: now}
		for i, text := range strings.Fields(row.host) {
			h.primary[i] = netip.MustParseAddr(text)
			h.prefixes = append(h.prefixes, netip.PrefixFrom(h.primary[i], h.primary[i].BitLen()))
		}
		h.prefixes = append(h.prefixes, netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128"))
		var a addresses
		a.set(nil)
		a.seen.Store(h)
		told, bind, ok := a.choose(row.family, netip.MustParseAddr(row.client), now)
		if ok != (row.want != "") || ok && (told.String() != row.want || bind != told) {
			t.Errorf("%+v: %v %v %v", row, told, bind, ok)
		}
	}
}
