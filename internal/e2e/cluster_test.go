package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

// cluster is several nodes over one Redis, each reaching it through a proxy of its own, behind HAProxy as packaging/ sets it up.
type cluster struct {
	t     *testing.T
	redis *testkit.RedisServer
	bus   []*testkit.Proxy // between each node and Redis
	nodes []*testkit.Server
	front string // the load balancer, as http://host:port
	token string // a room token for the room "hall"
}

const nodes = 3

func newCluster(t *testing.T, arguments ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, redis: testkit.Redis(t)}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret that the nodes of this test share\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		proxy := testkit.NewProxy(t, c.redis.Addr)
		c.bus = append(c.bus, proxy)
		c.nodes = append(c.nodes, testkit.Serve(t, testkit.Options{
			Name: fmt.Sprintf("node%d", i+1),
			// In the environment, so that subcommands find it too.
			Env: []string{"CALLBOX_TURN_SECRET_FILE=" + secret},
			Args: append([]string{
				"--bus", "redis://" + proxy.Addr, "--node-name", fmt.Sprintf("node%d", i+1),
				"--trusted-proxy", "127.0.0.1/32", "--drain-timeout", "5s",
			}, arguments...),
		}))
	}
	c.front = "http://" + haproxy(t, c.nodes)
	return c
}

// haproxy starts HAProxy with the project's own example in front of three servers and returns its address.
func haproxy(t *testing.T, servers []*testkit.Server) string {
	t.Helper()
	front := fmt.Sprintf("127.0.0.1:%d", testkit.Port(t, "127.0.0.1"))
	cmd := exec.Command(testkit.Tool(t, "haproxy"), "-db", "-f", filepath.Join(testkit.Root(t), "packaging/haproxy/haproxy.cfg"))
	cmd.Env = append(cmd.Environ(), "CALLBOX_FRONT="+front)
	for i := range nodes {
		// Fewer servers than the example has fill their places twice.
		cmd.Env = append(cmd.Env, fmt.Sprintf("CALLBOX_NODE_%d=%s", i+1, servers[i%len(servers)].Addr()))
	}
	testkit.Start(t, "haproxy", cmd)
	testkit.Eventually(t, 15*time.Second, "the load balancer answers", func() error {
		response, err := http.Get("http://" + front + "/readyz")
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", response.Status)
		}
		return nil
	})
	http.DefaultClient.CloseIdleConnections()
	return front
}

// guest connects a client with a room token to some of the nodes; with none it goes through the load balancer.
func (c *cluster) guest(name string, at ...*testkit.Server) *wire {
	c.t.Helper()
	if c.token == "" {
		c.token, _, _ = roomToken(c.t, c.nodes[0], "hall", "guest")
	}
	urls := []string{c.front}
	if len(at) > 0 {
		urls = nil
		for _, s := range at {
			urls = append(urls, s.URL(""))
		}
	}
	var w *wire
	// A key made a moment ago reaches the other nodes a moment later.
	testkit.Eventually(c.t, 10*time.Second, "the token is known", func() error {
		for _, node := range c.nodes {
			if node.Ended() {
				continue
			}
			if got := status(c.t, node, entrance{client: node.Client(), token: c.token}); got != http.StatusSwitchingProtocols {
				return fmt.Errorf("%s: %d", node.Name, got)
			}
		}
		return nil
	})
	w = connect(c.t, name, entrance{urls: urls, client: c.nodes[0].Client(), token: c.token})
	w.join("hall")
	return w
}

// meets waits until one sees the other in the room.
func meets(t *testing.T, one, other *wire) {
	t.Helper()
	id := other.id()
	one.await(15*time.Second, "presence of "+other.name, func(m message) bool {
		if m.Type == "joined" {
			for _, p := range m.Peers {
				if p.Peer == id {
					return true
				}
			}
		}
		var p member
		return m.Type == "peer-joined" && json.Unmarshal(m.Peer, &p) == nil && p.Peer == id
	})
}

// arrives sends one signal with a mark nobody has used and waits for it.
func arrives(t *testing.T, within time.Duration, from, to *wire) {
	t.Helper()
	mark := fmt.Sprintf(`"mark %d"`, time.Now().UnixNano())
	testkit.Eventually(t, within, fmt.Sprintf("a signal from %s to %s", from.name, to.name), func() error {
		// Sent again where it came back as undeliverable: that is the protocol's word that it did not arrive.
		id := to.id()
		from.mu.Lock()
		before := len(from.messages)
		from.mu.Unlock()
		from.signal(id, json.RawMessage(mark))
		return testkit.Poll(2*time.Second, func() error {
			to.mu.Lock()
			for _, m := range to.messages {
				if m.Type == "signal" && string(m.Data) == mark {
					to.mu.Unlock()
					return nil
				}
			}
			to.mu.Unlock()
			from.mu.Lock()
			defer from.mu.Unlock()
			return fmt.Errorf("not there; the sender heard %+v", from.messages[before:])
		})
	})
}

func TestBrowsersOnDifferentNodesAreInOneCall(t *testing.T) {
	c := newCluster(t)
	c.nodes[0].AddUser("ada", password)
	c.nodes[0].AddUser("grace", password)
	b := testkit.NewBrowser(t)
	// Without the load balancer it is certain that they are on two nodes.
	ada := logIn(t, b.Page(t, "ada"), c.nodes[0].URL(""), "ada", "/call/across")
	grace := logIn(t, b.Page(t, "grace"), c.nodes[1].URL(""), "grace", "/call/across")
	ada.join(true)
	grace.join(true)
	for _, one := range []*caller{ada, grace} {
		one.connected(1, 40*time.Second, relayed("udp", "tcp"))
		one.moving(20 * time.Second)
	}
	ada.say("from node to node")
	grace.hears("from node to node")
}

func TestCallThroughTheLoadBalancer(t *testing.T) {
	c := newCluster(t)
	for _, user := range []string{"ada", "grace", "alan"} {
		c.nodes[0].AddUser(user, password)
	}
	b := testkit.NewBrowser(t)
	var callers []*caller
	for _, user := range []string{"ada", "grace", "alan"} {
		one := logIn(t, b.Page(t, user), c.front, user, "/call/round-robin")
		one.join(false)
		callers = append(callers, one)
	}
	for _, one := range callers {
		one.connected(2, 40*time.Second, direct)
		one.moving(20 * time.Second)
	}
}

// With round robin every request meets another node, so that a session which one node does not know is seen at once.
func TestNodesAreOneSystem(t *testing.T) {
	c := newCluster(t)
	// Any node's set-up link works on every node, once.
	link := c.nodes[0].SetupLink()
	client := c.nodes[0].Client()
	token := link[len("/setup?token="):]
	form := "token=" + token + "&username=ada&password=" + urlEncode(password) + "&again=" + urlEncode(password)
	made := 0
	for range nodes {
		response, err := client.Post(c.front+"/setup", "application/x-www-form-urlencoded", strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusSeeOther {
			made++
		}
	}
	if made != 1 {
		t.Fatalf("the set-up link made %d users", made)
	}
	cookie := logInAt(t, c.nodes[0].Client(), c.front, "ada", password)
	everywhere := func(want int, what string) {
		t.Helper()
		testkit.Eventually(t, 5*time.Second, what, func() error {
			for _, node := range c.nodes {
				if got := iceStatus(t, node.URL(""), cookie); got != want {
					return fmt.Errorf("%s: %d, want %d", node.Name, got, want)
				}
			}
			return nil
		})
	}
	everywhere(http.StatusOK, "the session holds on every node")

	// Logging out through the load balancer ends the session on every node, and for good.
	post(t, c.front+"/logout", cookie)
	everywhere(http.StatusUnauthorized, "the session is over on every node")
	c.nodes[1].Stop()
	c.nodes[1].Restart()
	everywhere(http.StatusUnauthorized, "the session is over after a restart")

	guestsAreCountedTogether(t, c)

	// Removing the user on one node ends what is open on another.
	cookie = logInAt(t, c.nodes[0].Client(), c.front, "ada", password)
	everywhere(http.StatusOK, "the new session holds on every node")
	holder := c.nodes[2]
	ada := connect(t, "ada", entrance{urls: []string{holder.URL("")}, client: holder.Client(), header: http.Header{"Origin": {holder.URL("")}, "Cookie": {cookie}}})
	c.nodes[1].MustCLI("", "user", "remove", "ada")
	select {
	case <-ada.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the WebSocket of a removed user lives on at another node")
	}
	everywhere(http.StatusUnauthorized, "nobody is left of the removed user")
}

// A credential from any node is good on every node.
func TestCredentialOfOneNodeWorksOnAnother(t *testing.T) {
	c := newCluster(t)
	credential := c.nodes[0].Credential("ada")
	for _, node := range c.nodes {
		socket, err := listenLoopback()
		if err != nil {
			t.Fatal(err)
		}
		client, relay := allocate(t, socket, node.Addr(), credential)
		_ = relay.Close()
		client.Close()
		_ = socket.Close()
	}
}

func TestClusterNodeWithoutASecretDoesNotStart(t *testing.T) {
	redis := testkit.Redis(t)
	_, diagnostics, code := testkit.CLI(t, "", "serve", "--listen", fmt.Sprintf("127.0.0.1:%d", testkit.Port(t, "127.0.0.1")),
		"--data", filepath.Join(t.TempDir(), "data"), "--bus", redis.URL())
	if code == 0 {
		t.Error("it started")
	}
	if !containsAny(diagnostics, "--cluster-secret-file", "--turn-secret-file", "cluster-secret-file") {
		t.Errorf("the refusal does not say what to do: %q", diagnostics)
	}
}
