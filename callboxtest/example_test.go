package callboxtest_test

import (
	"testing"

	"callbox/callboxtest"
	"callbox/signal/client"
)

// What a test of a program looks like that has two of its users meet on different nodes.
func ExampleStartCluster() {
	test := func(t *testing.T) {
		c := callboxtest.StartCluster(t, 2, callboxtest.WithFlag("max-peers", "4"))
		ada, bob := c.Nodes[0].Client("tea", "ada"), c.Nodes[1].Client("tea", "bob")
		for _, peer := range []*client.Client{ada, bob} {
			if _, err := peer.Join(t.Context(), "tea"); err != nil {
				t.Fatal(err)
			}
		}
		for met := false; !met; {
			e, err := ada.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if joined, ok := e.(client.PeerJoined); ok {
				met = true
				if err := ada.Signal(t.Context(), joined.Peer.ID, "an offer"); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Kill(0) // what does the program do about it?
	}
	_ = test // in a program: func TestCallOverTwoNodes(t *testing.T)
}
