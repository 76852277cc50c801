package redis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callbox/bus"
	"callbox/bus/bustest"
)

// exchange sends a message each way.
func exchange(t *testing.T, a, b *Bus, la, lb *ledger) {
	t.Helper()
	na, nb := len(la.gotten()), len(lb.gotten())
	if err := a.Send(b.Self(), []byte("there")); err != nil {
		t.Fatal(err)
	}
	if err := b.Send(a.Self(), []byte("back")); err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, 10*time.Second, "a message each way", func() bool { return len(la.gotten()) > na && len(lb.gotten()) > nb })
}

// certificate writes a self-signed one for 127.0.0.1 and its key.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestRedisOverTLSWithUserAndDatabase(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	port := freePort(t)
	acl := filepath.Join(t.TempDir(), "users.acl")
	// All the rights that a node needs, and no more.
	rights := "user default off\nuser callbox on >p@ss ~callbox:* &callbox:* -@all +@connection +@pubsub +@hash +@set +@sortedset +@string +@scripting +@keyspace +time -@dangerous +info\n"
	if err := os.WriteFile(acl, []byte(rights), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, "--tls-port", fmt.Sprint(port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no", "--aclfile", acl)
	url := fmt.Sprintf("rediss://callbox:p%%40ss@127.0.0.1:%d/2?ca=%s", port, cert)
	a, la := openLedger(t, url, "a")
	b, lb := openLedger(t, url, "b")
	exchange(t, a, b, la, lb)
	ctx := context.Background()
	g, err := a.Claim(ctx, bus.Claim{Peer: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Join(ctx, "r", bus.Member{Peer: "p", Epoch: g.Epoch}, 2); err != nil {
		t.Fatal(err)
	}
	put := func([]byte) ([]byte, time.Duration, error) { return []byte("v"), 0, nil }
	if err := b.Update(ctx, "users", "u", put); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Config{URL: fmt.Sprintf("rediss://callbox:wrong@127.0.0.1:%d?ca=%s", port, cert), Name: "c"}); err == nil {
		t.Error("opened with a wrong password")
	}
	if _, err := Open(ctx, Config{URL: fmt.Sprintf("rediss://callbox:p%%40ss@127.0.0.1:%d", port), Name: "c"}); err == nil {
		t.Error("opened though nobody vouches for the certificate")
	}
}

func TestPlainURLForAClusterNamesTheRightOne(t *testing.T) {
	s := startServer(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(freePort(t)))
	_, err := Open(context.Background(), Config{URL: "redis://" + s.address(), Name: "a"})
	if err == nil || !strings.Contains(err.Error(), "redis+cluster://") {
		t.Errorf("open: %v; want the form of URL to use", err)
	}
}

func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	master := startServer(t)
	startServer(t, "--replicaof", "127.0.0.1", fmt.Sprint(master.port), "--repl-diskless-sync-delay", "0")
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\nsentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n", master.port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := startSentinel(t, conf)
	control := newCluster(t, "redis://"+sentinel.address(), nil).control
	ctx := context.Background()
	bustest.Eventually(t, 30*time.Second, "the sentinel to know the replica", func() bool {
		m, err := control.Do(ctx, control.B().Arbitrary("SENTINEL", "MASTER", "main").Build()).AsStrMap()
		return err == nil && m["num-slaves"] == "1" && m["flags"] == "master"
	})
	url := "redis+sentinel://" + sentinel.address() + "/main"
	a, la := openLedger(t, url, "a")
	b, lb := openLedger(t, url, "b")
	exchange(t, a, b, la, lb)
	g, err := a.Claim(ctx, bus.Claim{Peer: "p", Proof: []byte("proof")})
	if err != nil {
		t.Fatal(err)
	}
	master.kill()
	bustest.Eventually(t, 40*time.Second, "both nodes to be back on the new master", func() bool {
		return la.linkUpAgain() && lb.linkUpAgain() && len(a.Nodes()) == 2 && len(b.Nodes()) == 2
	})
	exchange(t, a, b, la, lb)
	h, err := a.Claim(ctx, bus.Claim{Peer: "p", Proof: []byte("proof"), Held: g.Epoch})
	if err != nil || h.Epoch <= g.Epoch {
		t.Errorf("re-claim after epoch %d: %+v, %v", g.Epoch, h, err)
	}
}

func TestNodeHasTwoConnections(t *testing.T) {
	s := startServer(t)
	url := "redis://" + s.address()
	x := newCluster(t, url, nil)
	count := func() int {
		list, err := x.control.Do(context.Background(), x.control.B().ClientList().Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(list, "\n")
	}
	before := count()
	a, la := openLedger(t, url, "a")
	b, lb := openLedger(t, url, "b")
	exchange(t, a, b, la, lb)
	if n := count() - before; n != 4 {
		t.Errorf("two nodes have %d connections, want 4", n)
	}
	kill(t, x, "pubsub")
	bustest.Eventually(t, 10*time.Second, "messages after a broken subscription", func() bool {
		n := len(lb.gotten())
		return a.Send(b.Self(), []byte("again")) == nil && n > 2
	})
	if n := count() - before; n != 4 {
		t.Errorf("after that they have %d connections, want 4", n)
	}
}
