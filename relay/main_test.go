package relay

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSecret = "north"

// password is what a credential service would issue for a user name.
func password(username string) string {
	h := hmac.New(sha1.New, []byte(testSecret))
	h.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func keyFor(username, realm, password string) []byte {
	k := md5.Sum([]byte(username + ":" + realm + ":" + password))
	return k[:]
}

var errUnknown = errors.New("no such user")

// testKeys knows every user but "nobody", and lets "expired" refresh but not allocate. The user's part of the owner is what
// stands after the colon.
func testKeys(username, realm string, allocate bool) ([][]byte, Owner, error) {
	_, user, _ := strings.Cut(username, ":")
	if user == "nobody" || user == "expired" && allocate {
		return nil, Owner{}, errUnknown
	}
	keys := [][]byte{keyFor(username, realm, "of the newest secret"), keyFor(username, realm, password(username))}
	return keys, Owner{User: user, Session: "s-" + user}, nil
}

// testServer is a relay on loopback whose streams come in through a listener of the test.
type testServer struct {
	*Server
	tcp net.Listener
}

func newServer(t testing.TB, change func(*Config)) *testServer {
	t.Helper()
	cfg := Config{
		UDP:   []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Ports: PortRange{49152, 65535},
		Keys:  testKeys,
		Log:   slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(s.Addr().Addr(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.ServeStream(c) // Server.Close waits for it
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		s.Close()
	})
	return &testServer{s, l}
}

// allowLoopback is a policy for tests whose peers are sockets of the test.
func allowLoopback(c *Config) {
	p, err := ParsePolicy([]string{"127.0.0.0/8", "::1"}, nil)
	if err != nil {
		panic(err)
	}
	c.AllowPeer = p.Allow
}

// eventually waits for something that another goroutine brings about.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// eventuallyFree waits until a UDP address can be bound. The kernel lets a port go when its reader has woken, and for a moment
// a stranger's socket may have it.
func eventuallyFree(t testing.TB, addr netip.AddrPort) {
	t.Helper()
	eventually(t, addr.String()+" is free", func() bool {
		pc, err := net.ListenPacket("udp", addr.String())
		if err == nil {
			pc.Close()
		}
		return err == nil
	})
}
