package doctor

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// expect looks at one check: its verdict, words of what it saw, and words of its remedy.
func expect(t *testing.T, c Check, verdict Verdict, saw, remedy string) {
	t.Helper()
	if c.Verdict != verdict || !strings.Contains(c.Saw, saw) || !strings.Contains(c.Remedy, remedy) {
		t.Errorf("%s: %s, saw %q, remedy %q; want %s with %q and %q", c.Name, c.Verdict, c.Saw, c.Remedy, verdict, saw, remedy)
	}
	if (c.Verdict == Fail || c.Verdict == Warn) == (c.Remedy == "") {
		t.Errorf("%s: %s with remedy %q", c.Name, c.Verdict, c.Remedy)
	}
	if c.Saw == "" {
		t.Errorf("%s says not what it saw", c.Name)
	}
}
