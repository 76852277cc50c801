package testkit

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// relayPage connects two RTCPeerConnections of one page with a data channel, relay only, and tells the selected pair.
const relayPage = `(async (server) => {
  const config = {iceServers: [{urls: server, username: 'u', credential: 'p'}], iceTransportPolicy: 'relay'};
  const a = new RTCPeerConnection(config), b = new RTCPeerConnection(config);
  const errors = [];
  for (const [x, y] of [[a, b], [b, a]]) {
    x.onicecandidate = (e) => { if (e.candidate) y.addIceCandidate(e.candidate); };
    x.onicecandidateerror = (e) => errors.push(e.url + ' ' + e.errorCode + ' ' + e.errorText);
  }
  const got = new Promise((resolve) => { b.ondatachannel = (e) => { e.channel.onmessage = (m) => resolve(m.data); }; });
  const channel = a.createDataChannel('x');
  channel.onopen = () => channel.send('hello');
  await a.setLocalDescription(); await b.setRemoteDescription(a.localDescription);
  await b.setLocalDescription(); await a.setRemoteDescription(b.localDescription);
  const late = new Promise((resolve) => setTimeout(() => resolve('nothing: ' + errors.join(', ')), 15000));
  const text = await Promise.race([got, late]);
  let pair = {};
  const stats = await a.getStats();
  stats.forEach((s) => { if (s.type === 'transport' && s.selectedCandidatePairId) {
    const p = stats.get(s.selectedCandidatePairId), l = stats.get(p.localCandidateId), r = stats.get(p.remoteCandidateId);
    pair = {local: l.candidateType, remote: r.candidateType, protocol: l.relayProtocol, address: l.address};
  }});
  a.close(); b.close();
  return {text, ...pair};
})`

// The browser as this package starts it reaches a TURN server on loopback over each transport. Where this fails, a failing
// call in internal/e2e says nothing about callbox.
func TestBrowserRelaysOverLoopback(t *testing.T) {
	turnserver := Tool(t, "turnserver")
	dir := t.TempDir()
	certificate, key := selfSigned(t, dir)
	port, tls := Port(t, "127.0.0.1"), Port(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, turnserver, "-n", "--no-cli", "-L", "127.0.0.1", "-E", "127.0.0.1",
		"-p", fmt.Sprint(port), "--tls-listening-port", fmt.Sprint(tls), "--cert", certificate, "--pkey", key,
		"-a", "-u", "u:p", "-r", "test", "--allow-loopback-peers", "--pidfile", filepath.Join(dir, "pid"), "--userdb", filepath.Join(dir, "db"),
		"--log-file", "stdout", "--simple-log")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	Eventually(t, 10*time.Second, "turnserver listens", func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tls))
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>relay</title>")
	}))
	defer site.Close()
	page := NewBrowser(t, IgnoreCertificates()).Page(t, "relay")
	page.Open(site.URL)
	for protocol, url := range map[string]string{
		"udp": fmt.Sprintf("turn:127.0.0.1:%d?transport=udp", port),
		"tcp": fmt.Sprintf("turn:127.0.0.1:%d?transport=tcp", port),
		"tls": fmt.Sprintf("turns:127.0.0.1:%d?transport=tcp", tls),
	} {
		t.Run(protocol, func(t *testing.T) {
			argument, _ := json.Marshal(url)
			var got struct{ Text, Local, Remote, Protocol, Address string }
			page.MustEval(fmt.Sprintf("%s(%s)", relayPage, argument), &got)
			if got.Text != "hello" || got.Local != "relay" || got.Remote != "relay" || got.Protocol != protocol {
				t.Fatalf("%s: %+v", url, got)
			}
		})
	}
}

// selfSigned writes a certificate for 127.0.0.1 and its key as PEM files.
func selfSigned(t testing.TB, dir string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}
