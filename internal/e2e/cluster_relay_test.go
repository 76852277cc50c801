package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// turnPorts asks a node for iceServers and returns the ports of the TURN URLs in their order, each once.
func turnPorts(t *testing.T, c *cluster, s *testkit.Server) []string {
	t.Helper()
	code, m, body := iceServers(t, s, s.Client(), c.token, "?room=hall")
	if code != http.StatusOK {
		t.Fatalf("%s: %d %s", s.Name, code, body)
	}
	var ports []string
	for _, server := range m.Servers {
		for _, url := range server.URLs {
			if !strings.HasPrefix(url, "turn") {
				continue
			}
			address, _, _ := strings.Cut(url, "?")
			port := address[strings.LastIndexByte(address, ':')+1:]
			if !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

func TestICEServersNameLivingNodes(t *testing.T) {
	c := newCluster(t)
	a := c.guest("a", c.nodes[0])
	port := func(i int) string { return fmt.Sprint(c.nodes[i].Port) }
	testkit.Eventually(t, 10*time.Second, "a second node is offered", func() error {
		if ports := turnPorts(t, c, c.nodes[0]); len(ports) < 2 || ports[0] != port(0) {
			return fmt.Errorf("offered: %v", ports)
		}
		return nil
	})
	// A killed node is not offered when its lease is over, nor a draining one at once.
	c.nodes[1].Kill()
	testkit.Eventually(t, 8*time.Second, "the dead node is not offered", func() error {
		if ports := turnPorts(t, c, c.nodes[0]); !slices.Equal(ports, []string{port(0), port(2)}) {
			return fmt.Errorf("offered: %v, want %s and %s", ports, port(0), port(2))
		}
		return nil
	})
	hold := holdAllocation(t, c.nodes[2])
	defer hold()
	c.nodes[2].Terminate()
	testkit.Eventually(t, 3*time.Second, "the draining node is not offered", func() error {
		if ports := turnPorts(t, c, c.nodes[0]); !slices.Equal(ports, []string{port(0)}) {
			return fmt.Errorf("offered: %v, want %s", ports, port(0))
		}
		return nil
	})
	// Behind a balancer that passes TCP through, a kept connection would lead to this node again and again.
	response, err := http.Get(c.nodes[2].URL("/readyz"))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || !response.Close {
		t.Errorf("the draining node answers %s, connection ends: %v", response.Status, response.Close)
	}
	c.nodes[2].Wait(30 * time.Second)
	a.clean()
}

// With the sealed relay a packet passes only between allocations of one process: whoever is in a room must meet on one node.
func TestSealedRelaysMeetOnTheRoomsNode(t *testing.T) {
	c := newCluster(t, "--relay-ports", "none")
	c.nodes[0].AddUser("ada", password)
	c.nodes[0].AddUser("grace", password)
	b := testkit.NewBrowser(t)
	ada := logIn(t, b.Page(t, "ada"), c.nodes[1].URL(""), "ada", "/call/sealed")
	grace := logIn(t, b.Page(t, "grace"), c.nodes[2].URL(""), "grace", "/call/sealed")
	ada.join(true)
	grace.join(true)
	for _, one := range []*caller{ada, grace} {
		one.connected(1, 60*time.Second, relayed("udp", "tcp"))
		one.moving(20 * time.Second)
	}
}

// Who guesses passwords at one node is slowed down at the others.
func TestGuessesAtOneNodeCountAtAll(t *testing.T) {
	c := newCluster(t)
	c.nodes[0].AddUser("ada", password)
	attempt := func(s *testkit.Server, password string) int {
		body, err := json.Marshal(map[string]string{"username": "ada", "password": password})
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.Client().Post(s.URL("/api/v1/login"), "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	for _, other := range c.nodes[1:] {
		// A delay may be over before the other node is asked; each further guess makes it longer.
		testkit.Eventually(t, 2*time.Minute, other.Name+" slows down who guesses at node1", func() error {
			if code := attempt(c.nodes[0], "guess guess"); code != http.StatusTooManyRequests {
				return fmt.Errorf("node1 answers %d", code)
			}
			if code := attempt(other, password); code != http.StatusTooManyRequests {
				return fmt.Errorf("it answers %d", code)
			}
			return nil
		})
	}
}
