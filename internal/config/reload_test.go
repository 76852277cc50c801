package config

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func TestReloadMergesWhatCanChange(t *testing.T) {
	was, next := Default(), Default()
	next.PublicIP, next.TURNHost = []netip.Addr{netip.MustParseAddr("203.0.113.5")}, "turn.example"
	next.Realm, next.Bus = "other", "redis://redis.example"
	merged, changed, restart := was.Reload(next)
	if !slices.Equal(changed, []string{"public-ip", "turn-host"}) || !slices.Equal(restart, []string{"realm", "bus"}) {
		t.Errorf("changed %q, restart %q", changed, restart)
	}
	want := Default()
	want.PublicIP, want.TURNHost = next.PublicIP, next.TURNHost
	if !reflect.DeepEqual(merged, want) || !reflect.DeepEqual(was, Default()) {
		t.Errorf("merged %+v of %+v", merged, was)
	}
	if _, changed, restart = merged.Reload(next); len(changed) != 0 || len(restart) != 2 {
		t.Errorf("again: changed %q, restart %q", changed, restart)
	}
}
