package udp

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1e9, 0)
	for i, row := range []struct {
		packets int
		every   time.Duration
		want    bool
	}{
		{1, 10 * time.Millisecond, false},
		{1, time.Millisecond, false},
		{5, time.Millisecond, true},
		{32, time.Second, false}, // a burst now and then
		{2, 200 * time.Microsecond, true},
		{0, time.Millisecond, false},
		{1, 100 * time.Microsecond, false}, // one by one
		{1, 100 * time.Microsecond, false},
		{0, 10 * time.Millisecond, false},
		{4, 100 * time.Microsecond, true},
	} {
		for range 100 {
			p.packets = row.packets
			now = now.Add(row.every)
			p.did(now.Add(-10*time.Microsecond), now)
		}
		if p.fast != row.want {
			t.Errorf("row %d: fast is %v", i, p.fast)
		}
	}
	if p.busy != 1000*10*time.Microsecond {
		t.Errorf("busy for %v", p.busy)
	}
}
