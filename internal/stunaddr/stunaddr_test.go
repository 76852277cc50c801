package stunaddr

import (
	"net"
	"net/netip"
	"testing"

	"github.com/pion/stun/v2"
)

func TestXOR(t *testing.T) {
	with := func(value ...byte) stun.Setter { return stun.RawAttribute{Type: stun.AttrXORPeerAddress, Value: value} }
	for name, tc := range map[string]struct {
		attribute stun.Setter
		want      string
	}{
		"IPv4":            {&stun.XORMappedAddress{IP: net.IPv4(203, 0, 113, 5), Port: 3478}, "203.0.113.5:3478"},
		"IPv6":            {&stun.XORMappedAddress{IP: net.ParseIP("2001:db8::1"), Port: 1}, "[2001:db8::1]:1"},
		"none":            {stun.NewSoftware("x"), ""},
		"empty":           {with(), ""},
		"one byte":        {with(0), ""},
		"no address":      {with(0, 1, 0, 1), ""},
		"half an address": {with(0, 1, 0, 1, 9, 9), ""},
		"IPv6 in four":    {with(0, 2, 0, 1, 9, 9, 9, 9), ""},
		"IPv4 in sixteen": {with(0, 1, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9), ""},
		"no family":       {with(0, 0, 0, 1, 9, 9, 9, 9), ""},
		"port 0":          {with(0, 1, 0x21, 0x12, 9, 9, 9, 9), ""},
	} {
		t.Run(name, func(t *testing.T) {
			kind := stun.AttrXORPeerAddress
			if _, ok := tc.attribute.(*stun.XORMappedAddress); ok {
				kind = stun.AttrXORMappedAddress
			}
			m := stun.MustBuild(stun.TransactionID, stun.BindingSuccess, tc.attribute)
			got, err := XOR(m, kind)
			want, _ := netip.ParseAddrPort(tc.want)
			if got != want || (err != nil) != (tc.want == "") {
				t.Errorf("%v, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func FuzzXOR(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 0, 1, 9, 9, 9, 9})
	f.Fuzz(func(t *testing.T, value []byte) {
		m := stun.MustBuild(stun.TransactionID, stun.BindingSuccess)
		m.Add(stun.AttrXORMappedAddress, value)
		m.Raw = m.Raw[:len(m.Raw):len(m.Raw)]
		if err := m.Decode(); err != nil {
			return
		}
		if a, err := XOR(m, stun.AttrXORMappedAddress); err == nil && (!a.IsValid() || a.Port() == 0) {
			t.Errorf("%v", a)
		}
	})
}
