package bus_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"callbox/bus"
	"callbox/bus/memory"
)

// node prints what reaches it.
type node struct{ heard chan string }

func (n node) Message(from bus.NodeID, data []byte) { n.heard <- from.Name() + " says " + string(data) }
func (n node) Lost(to bus.NodeID, data []byte, why error) {
	n.heard <- "not delivered to " + to.Name()
}
func (n node) Changed(bucket, key string)  {}
func (n node) NodesChanged([]bus.NodeInfo) {}
func (n node) Link(up bool)                {}

// Two nodes on the bus of one process. Over Redis, redis.Open takes the place of memory.NewNetwork and Open.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network := memory.NewNetwork()
	open := func(name string) (*memory.Bus, node) {
		b, err := network.Open(memory.Config{Name: name})
		if err != nil {
			log.Fatal(err)
		}
		n := node{heard: make(chan string, 1)}
		if err := b.Start(n); err != nil {
			log.Fatal(err)
		}
		return b, n
	}
	one, _ := open("one")
	two, inbox := open("two")
	defer func() { _, _ = one.Close(), two.Close() }()

	// The second node holds a peer; the first finds out where, and sends something there.
	if _, err := two.Claim(ctx, bus.Claim{Peer: "ada", Proof: []byte("secret")}); err != nil {
		log.Fatal(err)
	}
	at, _, err := one.Locate(ctx, "ada", 0)
	if err != nil {
		log.Fatal(err)
	}
	if err := one.Send(at, []byte("an offer for ada")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-inbox.heard)

	room, err := two.Join(ctx, "tea", bus.Member{Peer: "ada", Epoch: 1}, 50)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(room.Members), "member, relayed by", room.Relay.Name() != "")
	// Output:
	// one says an offer for ada
	// 1 member, relayed by true
}
