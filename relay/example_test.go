package relay_test

import (
	"crypto/md5"
	"fmt"
	"log"
	"net"
	"net/netip"

	"callbox/relay"

	"github.com/pion/turn/v3"
)

// A relay for one user with a password, whose clients may reach peers on loopback.
func ExampleListen() {
	policy, err := relay.ParsePolicy([]string{"127.0.0.0/8"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	server, err := relay.Listen(relay.Config{
		UDP:   []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Ports: relay.PortRange{Low: 49152, High: 65535},
		Realm: "example",
		Keys: func(username, realm string, _ bool) ([][]byte, relay.Owner, error) {
			if username != "ada" {
				return nil, relay.Owner{}, fmt.Errorf("%q is not known", username)
			}
			key := md5.Sum([]byte(username + ":" + realm + ":password")) // RFC 8489 section 9.2.2
			return [][]byte{key[:]}, relay.Owner{User: username}, nil
		},
		AllowPeer: policy.Allow,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = server.Close() }()

	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: server.Addr().String(), TURNServerAddr: server.Addr().String(), Conn: conn,
		Username: "ada", Password: "password", Realm: "example",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.Listen(); err != nil {
		log.Fatal(err)
	}
	relayed, err := client.Allocate()
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = relayed.Close() }()
	host, _, _ := net.SplitHostPort(relayed.LocalAddr().String())
	fmt.Println("relayed at", host)
	// Output: relayed at 127.0.0.1
}
