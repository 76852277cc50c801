// Package check holds the tests of the files in packaging/ that need no release: each is read by the program it is for, where
// that is on the machine, or as that program's documents say.
package check

import (
	"testing"

	"callbox/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
