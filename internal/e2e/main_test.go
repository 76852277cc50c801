// Package e2e tests callbox as its users meet it: the real binary, real browsers, real Redis, real load balancers, and hosts
// behind real NATs in network namespaces. It has no code of its own; the helpers are in internal/testkit.
package e2e

import (
	"testing"

	"callbox/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
