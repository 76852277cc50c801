package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"callbox/bus"
	"callbox/bus/bustest"
	"callbox/bus/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type cluster struct{ net *memory.Network }

func (c cluster) Open(t testing.TB, name string, store *bus.Store) bus.Bus {
	b, err := c.net.Open(memory.Config{Name: name, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c cluster) Kill(_ testing.TB, b bus.Bus) { c.net.Kill(b.Self()) }
func (c cluster) Cut(_ testing.TB, b bus.Bus)  { c.net.Cut(b.Self()) }
func (c cluster) Heal(_ testing.TB, b bus.Bus) { c.net.Heal(b.Self()) }

func TestConformance(t *testing.T) {
	bustest.Run(t, func(*testing.T) bustest.Cluster { return cluster{memory.NewNetwork()} })
}
