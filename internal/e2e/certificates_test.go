package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callbox/internal/testkit"

	"github.com/pion/turn/v3"
)

// certificateState is what /readyz says of the certificate.
type certificateState struct {
	Source, Issuer, Error string
	Names, Missing        []string
	NotAfter, Retry       time.Time
}

func certificateOf(t *testing.T, s *testkit.Server) certificateState {
	t.Helper()
	response, err := s.Client().Get(s.MetricsURL("/readyz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var ready struct{ Certificate certificateState }
	if err := json.NewDecoder(response.Body).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	return ready.Certificate
}

// certified waits until a server has its certificates.
func certified(t *testing.T, s *testkit.Server) certificateState {
	t.Helper()
	var state certificateState
	testkit.Eventually(t, 90*time.Second, s.Name+" has its certificate", func() error {
		if state = certificateOf(t, s); len(state.Missing) > 0 || state.Source != "acme" {
			return fmt.Errorf("%+v", state)
		}
		return nil
	})
	return state
}

// worldClient trusts an authority alone, and finds a server under any name.
func worldClient(s *testkit.Server, roots *x509.CertPool, keep bool) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: !keep, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
		},
	}}
}

func healthy(c *http.Client, name string) (*x509.Certificate, error) {
	response, err := c.Get("https://" + name + "/healthz")
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	return response.TLS.PeerCertificates[0], nil
}

func acmeArgs(ca *testkit.Authority, name string) []string {
	return []string{"--domain", name, "--acme-ca", ca.URL, "--acme-ca-root", ca.Root, "--acme-email", "admin@call.example"}
}

// askICE returns the list of ICE servers as a client by that URL gets it.
func askICE(t *testing.T, c *http.Client, base, token string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/v1/ice-servers?room=hall", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("ICE servers: %s %v", response.Status, err)
	}
	return string(body)
}

// turnOver makes an allocation over TLS with a verified certificate.
func turnOver(t *testing.T, s *testkit.Server, name string, roots *x509.CertPool, user string) (net.PacketConn, *tls.Conn) {
	t.Helper()
	conn, err := tls.Dial("tcp4", s.Addr(), &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		t.Fatalf("TURN over TLS: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client, relay := allocate(t, turn.NewSTUNConn(conn), s.Addr(), s.Credential(user))
	t.Cleanup(client.Close)
	t.Cleanup(func() { _ = relay.Close() })
	return relay, conn
}

// exchange sends one packet each way between two relays. What went before a permission was there is sent again.
func exchange(t *testing.T, a, b net.PacketConn, text string) {
	t.Helper()
	buffer := make([]byte, 1500)
	for _, way := range [][2]net.PacketConn{{a, b}, {b, a}} {
		testkit.Eventually(t, 30*time.Second, "a packet passes", func() error {
			if _, err := way[0].WriteTo([]byte(text), way[1].LocalAddr()); err != nil {
				return err
			}
			if _, err := way[1].WriteTo([]byte("open"), way[0].LocalAddr()); err != nil {
				return err
			}
			if err := way[1].SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			for {
				n, _, err := way[1].ReadFrom(buffer)
				if err != nil {
					return err
				}
				if string(buffer[:n]) == text {
					return nil
				}
			}
		})
	}
}

func TestRenewalDropsNothing(t *testing.T) {
	const name = "call.test"
	const life = 40 * time.Second // a third of it is left for the renewal, on a machine under load
	port := testkit.Port(t, "127.0.0.1")
	// It finds nobody where it looks for TLS, and so comes by plain HTTP to the one port.
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: port, TLSPort: testkit.Port(t, "127.0.0.1"), Life: life, ShortLife: life})
	s := testkit.Serve(t, testkit.Options{
		Port: port, Args: append(acmeArgs(ca, name), "--relay-ports", "none"), Env: []string{"SSL_CERT_FILE=" + ca.RootsFile()},
	})
	first := certified(t, s)
	if !strings.Contains(first.Issuer, "Pebble") || first.Error != "" {
		t.Errorf("%+v", first)
	}
	roots := ca.Roots()

	// A session, two relays and a kept connection that began with the first certificate.
	token, _, _ := roomToken(t, s, "hall", "guest")
	socket := connect(t, "guest", entrance{urls: []string{"https://" + name}, client: worldClient(s, roots, false), token: token})
	socket.join("hall")
	if runtime.GOOS == "linux" && !strings.Contains(askICE(t, worldClient(s, roots, false), "https://"+name, token), fmt.Sprintf(`"turns:%s:%d?transport=tcp"`, name, port)) {
		t.Error("turns: is not offered though the certificate is trusted")
	}
	a, stream := turnOver(t, s, name, roots, "a")
	b, _ := turnOver(t, s, name, roots, "b")
	exchange(t, a, b, "with the first certificate")
	// All of these have been connected by now, on a slow machine not all with the very first certificate.
	began := stream.ConnectionState().PeerCertificates[0].NotAfter
	kept := worldClient(s, roots, true)
	if _, err := healthy(kept, name); err != nil {
		t.Fatal(err)
	}

	// New connections all the time, each of which must succeed.
	var requests atomic.Int32
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			fresh := worldClient(s, roots, false)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := healthy(fresh, name); err != nil {
					t.Errorf("request %d: %v", requests.Load(), err)
					return
				}
				requests.Add(1)
			}
		})
	}
	var renewed certificateState
	testkit.Eventually(t, 90*time.Second, "a renewed certificate", func() error {
		if renewed = certificateOf(t, s); !renewed.NotAfter.After(began) {
			return fmt.Errorf("%+v", renewed)
		}
		return nil
	})
	before := requests.Load()
	testkit.Eventually(t, 30*time.Second, "requests go on", func() error {
		if t.Failed() || requests.Load() >= before+10 {
			return nil
		}
		return fmt.Errorf("%d", requests.Load())
	})
	close(stop)
	wg.Wait()

	if _, err := healthy(kept, name); err != nil {
		t.Errorf("the kept connection: %v", err)
	}
	kept.CloseIdleConnections()
	exchange(t, a, b, "after the renewal")
	if _, again := turnOver(t, s, name, roots, "c"); !again.ConnectionState().PeerCertificates[0].NotAfter.After(began) {
		t.Error("TURN over TLS still has the certificate from before")
	}
	socket.send(map[string]any{"type": "broadcast", "room": "hall", "data": "still here"})
	socket.clean()
	socket.mu.Lock()
	defer socket.mu.Unlock()
	if len(socket.welcomes) != 1 {
		t.Errorf("the WebSocket was connected %d times", len(socket.welcomes))
	}
}

// alternator is a load balancer that gives each connection to the next server.
func alternator(t *testing.T, l net.Listener, servers func() []string) {
	t.Helper()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for next := 0; ; next++ {
			in, err := l.Accept()
			if err != nil {
				return
			}
			all := servers()
			out, err := new(net.Dialer).DialContext(ctx, "tcp", all[next%len(all)])
			if err != nil {
				_ = in.Close()
				continue
			}
			both := func() { _, _ = in.Close(), out.Close() }
			undo := context.AfterFunc(ctx, both)
			wg.Go(func() { _, _ = io.Copy(out, in); both() })
			wg.Go(func() { _, _ = io.Copy(in, out); both(); undo() })
		}
	})
	t.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
}

func TestClusterGetsOneCertificateBehindALoadBalancer(t *testing.T) {
	const name = "cluster.test"
	redis := testkit.Redis(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret that the nodes of this test share\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := front.Addr().(*net.TCPAddr).Port
	ports := []int{testkit.Port(t, "127.0.0.1"), testkit.Port(t, "127.0.0.1")}
	alternator(t, front, func() []string {
		return []string{fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])}
	})
	// It finds nobody where it looks for HTTP, and so asks by TLS.
	ca := testkit.ACME(t, testkit.AuthorityOptions{HTTPPort: testkit.Port(t, "127.0.0.1"), TLSPort: port})
	// The authority looks three times, so that at least one node is asked for what the other has ordered: before both are
	// there nothing is signed.
	var nodes []*testkit.Server
	for i, p := range ports {
		nodes = append(nodes, testkit.Serve(t, testkit.Options{
			Name: fmt.Sprintf("node%d", i+1), Port: p, Env: []string{"CALLBOX_CLUSTER_SECRET_FILE=" + secret},
			Args: append(acmeArgs(ca, name), "--bus", redis.URL(), "--node-name", fmt.Sprintf("node%d", i+1), "--drain-timeout", "0s"),
		}))
	}
	for _, s := range nodes {
		if state := certificateOf(t, s); len(state.Missing) > 0 {
			s.MustCLI("", "reload") // the attempt before both were up has failed, and the next is a minute away
		}
	}
	roots := ca.Roots()
	var serials []string
	for _, s := range nodes {
		certified(t, s)
		leaf, err := healthy(worldClient(s, roots, false), name)
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		serials = append(serials, leaf.SerialNumber.String())
	}
	if serials[0] != serials[1] || ca.Signed() != 1 {
		t.Errorf("serials %v, %d certificates signed", serials, ca.Signed())
	}
}

func TestServerWithoutItsCertificateServesAndSaysWhy(t *testing.T) {
	s := testkit.Serve(t, testkit.Options{Args: []string{
		"--domain", "call.test", "--acme-ca", fmt.Sprintf("https://127.0.0.1:%d/dir", testkit.Port(t, "127.0.0.1")),
	}})
	var state certificateState
	testkit.Eventually(t, 60*time.Second, "the reason is known", func() error {
		if state = certificateOf(t, s); state.Error == "" {
			return fmt.Errorf("%+v", state)
		}
		return nil
	})
	if !strings.Contains(state.Error, "the ACME server cannot be reached") || len(state.Missing) != 1 || state.Retry.IsZero() {
		t.Errorf("%+v", state)
	}
	// The local authority answers for the name meanwhile.
	text, err := os.ReadFile(filepath.Join(s.Data, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	if _, err := healthy(worldClient(s, roots, false), "call.test"); err != nil {
		t.Error(err)
	}
	response, err := s.Client().Get(s.MetricsURL("/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	metrics, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(metrics), "callbox_certificate_failing 1") {
		t.Errorf("metrics do not tell: %v", err)
	}
}
