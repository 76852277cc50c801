// Package install holds the tests of what is handed out: it is made, twice, and then installed and started where people do so,
// in a Debian that has nothing but its own base. It is separate from the other tests because it downloads that base.
package install

import (
	"testing"

	"callbox/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
