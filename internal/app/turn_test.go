package app

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/pion/stun/v2"
	"github.com/pion/turn/v3"

	"callbox/internal/config"
	"callbox/internal/control"
)

// dialTURN opens the transport of a TURN client.
func dialTURN(t *testing.T, network, addr string) net.PacketConn {
	t.Helper()
	var stream net.Conn
	var err error
	switch network {
	case "udp":
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	case "tcp":
		stream, err = net.Dial("tcp", addr)
	case "tls":
		stream, err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	return turn.NewSTUNConn(stream)
}

// allocate opens a relay and returns what Allocate says.
func allocate(t *testing.T, network, addr, username, password string) error {
	t.Helper()
	_, err := relayed(t, network, addr, username, password)
	return err
}

// relayed opens a relay and returns its address.
func relayed(t *testing.T, network, addr, username, password string) (net.Addr, error) {
	t.Helper()
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: addr, TURNServerAddr: addr, Conn: dialTURN(t, network, addr),
		Username: username, Password: password, Realm: "callbox",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	conn, err := client.Allocate()
	if err != nil {
		return nil, err
	}
	// At the end of the test, when the server may have ended it already.
	t.Cleanup(func() { _ = conn.Close() })
	return conn.LocalAddr(), nil
}

func TestOnePortRelaysOverEveryTransport(t *testing.T) {
	r := serve(t, func(c *config.Config) {
		c.TURNListen = []config.Listener{{Network: "tls", Addr: netip.MustParseAddrPort("127.0.0.1:0")}, {Network: "tcp", Addr: netip.MustParseAddrPort("127.0.0.1:0")}}
	})
	username, password, _ := r.live.Load().turn.Credential("somebody", r.cfg.TURNTTL, r.web.now())
	main := r.Addr().String()
	for _, c := range []struct{ network, addr string }{
		{"udp", main}, {"tcp", main}, {"tls", main},
		{"tls", r.extra[0].cfg.Listener.Addr().String()}, {"tcp", r.extra[1].cfg.Listener.Addr().String()},
	} {
		if err := allocate(t, c.network, c.addr, username, password); err != nil {
			t.Errorf("%s to %s: %v", c.network, c.addr, err)
		}
	}
	kinds := map[string]int{}
	for _, a := range r.relay.Allocations() {
		kinds[a.Transport.String()]++
	}
	if kinds["udp"] != 1 || kinds["tcp"] != 2 || kinds["tls"] != 2 {
		t.Errorf("allocations: %v", kinds)
	}
	if err := allocate(t, "udp", main, username, "wrong"); err == nil {
		t.Error("a wrong password opened the relay")
	}
}

// A client may offer TURN's own protocol names (RFC 7443) and nothing else; a listener for TURN alone asks for none.
func TestTURNOverTLSIsFoundByItsProtocolName(t *testing.T) {
	r := serve(t, func(c *config.Config) {
		c.TURNListen = []config.Listener{{Network: "tls", Addr: netip.MustParseAddrPort("127.0.0.1:0")}}
	})
	for _, addr := range []string{r.Addr().String(), r.extra[0].cfg.Listener.Addr().String()} {
		for _, name := range []string{"stun.turn", "stun.nat-discovery"} {
			c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{name}})
			if err != nil {
				t.Errorf("%s to %s: %v", name, addr, err)
				continue
			}
			request := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
			if _, err := c.Write(request.Raw); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			response := stun.New()
			if _, err := response.ReadFrom(c); err != nil || response.Type != stun.BindingSuccess {
				t.Errorf("%s: %v, %v", name, response.Type, err)
			}
			_ = c.Close()
		}
	}
}

func TestLogoutEndsRelaysAtOnce(t *testing.T) {
	r := serve(t, nil)
	r.addUser("ada", false)
	ada, stays := r.logIn("ada"), r.logIn("ada")
	credential := func(c *http.Client) (string, string) {
		t.Helper()
		var ice struct {
			ICEServers []struct{ Username, Credential string }
		}
		if err := json.Unmarshal([]byte(r.get(c, "/api/v1/ice-servers").Body), &ice); err != nil || len(ice.ICEServers) != 2 {
			t.Fatalf("%+v %v", ice, err)
		}
		return ice.ICEServers[1].Username, ice.ICEServers[1].Credential
	}
	username, password := credential(ada)
	otherName, otherPassword := credential(stays)
	for _, network := range []string{"udp", "tcp"} {
		if err := allocate(t, network, r.Addr().String(), username, password); err != nil {
			t.Fatal(err)
		}
	}
	if err := allocate(t, "udp", r.Addr().String(), otherName, otherPassword); err != nil {
		t.Fatal(err)
	}
	if a := r.form(ada, "/logout"); a.Status != http.StatusSeeOther {
		t.Fatalf("logout: %d", a.Status)
	}
	eventually(t, func() bool { return len(r.relay.Allocations()) == 1 })
	if err := allocate(t, "udp", r.Addr().String(), username, password); err == nil {
		t.Error("the credential of an ended session opens the relay")
	}
	if err := allocate(t, "tcp", r.Addr().String(), otherName, otherPassword); err != nil {
		t.Errorf("the same user's other session: %v", err)
	}
}

func TestApplicationsGetCredentialsByAPIKey(t *testing.T) {
	r := serve(t, nil)
	key, err := control.NewClient(r.data).AddKey(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	c := r.browser()
	bearer := []string{"Authorization", "Bearer " + key.Key}
	a := r.get(c, "/api/v1/turn?service=turn&username=mallory", bearer...)
	var got turnAnswer
	if err := json.Unmarshal([]byte(a.Body), &got); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d %s %v", a.Status, a.Body, err)
	}
	if got.TTL != 3600 || len(got.URIs) != 2 || !strings.HasPrefix(got.URIs[0], "turn:") || strings.Contains(got.Username, "mallory") {
		t.Errorf("got %+v", got)
	}
	if err := allocate(t, "udp", r.Addr().String(), got.Username, got.Password); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]int{
		"/api/v1/turn?service=turn":                                                                           401,
		"/api/v1/turn?service=turn&key=" + url.QueryEscape(key.Key):                                           200,
		"/api/v1/turn?service=turn&key=" + url.QueryEscape(key.Key) + "x":                                     401,
		"/api/v1/turn?service=stun&key=" + url.QueryEscape(key.Key):                                           400,
		"/api/v1/turn?service=turn&username=" + strings.Repeat("u", 129) + "&key=" + url.QueryEscape(key.Key): 400,
	} {
		if a := r.get(c, path); a.Status != want {
			t.Errorf("%s: %d, want %d", path, a.Status, want)
		}
	}
	if err := control.NewClient(r.data).RemoveKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(r.relay.Allocations()) == 0 })
}
