package main

import "testing"

func TestPackageVersionsAreInOrder(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "1.2.3": "1.2.3", "v1.2.3-4-gabcdef0": "1.2.3+4.gabcdef0", "v1.2.3-dirty": "1.2.3+dirty",
		"v1.2.3-rc.1": "1.2.3~rc.1", "v1.2.3-rc.1-4-gabcdef0": "1.2.3~rc.1.4.gabcdef0", "v1.2.3-beta2": "1.2.3~beta2",
		"abcdef0": "0.0.0+abcdef0", "4af496c": "0.0.0+4af496c", "abcdef0-dirty": "0.0.0+abcdef0.dirty", "beta123": "0.0.0~beta123",
	} {
		if got := (release{version: version}).packageVersion(); got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
}
