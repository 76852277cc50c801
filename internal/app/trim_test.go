package app

import "testing"

func TestMemoryIsGivenBackAtRestOnly(t *testing.T) {
	const mega = 1 << 20
	var r trimmer
	for i, look := range []struct {
		allocated, free uint64
		due             bool
	}{
		{5 * mega, 0, false},           // a rush
		{100 * mega, 0, false},         // goes on
		{101 * mega, 0, true},          // and is over
		{102 * mega, mega, false},      // nothing to gain
		{103 * mega, 12 * mega, true},  // freed by the collector, and kept
		{104 * mega, 0, false},         //
		{120 * mega, 20 * mega, false}, // another rush
		{121 * mega, 20 * mega, true},
	} {
		if due := r.due(look.allocated, look.free); due != look.due {
			t.Errorf("look %d: %v", i, due)
		}
	}
}
