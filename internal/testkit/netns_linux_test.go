package testkit

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func TestNamespacesAreHostsOfTheirOwn(t *testing.T) {
	a, b := NewNamespace(t, "a"), NewNamespace(t, "b")
	a.Link("10.1.0.1/24", b, "10.1.0.2/24")
	server, err := b.ListenPacket("udp4", "10.1.0.2:4000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	client, err := a.Dial(t.Context(), "udp4", "10.1.0.2:4000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, from, err := server.ReadFrom(make([]byte, 10))
	if err != nil || !strings.HasPrefix(from.String(), "10.1.0.1:") {
		t.Fatalf("from %v: %v", from, err)
	}
	b.Nft("table inet f { chain in { type filter hook input priority 0; policy drop; }; }")
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := server.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := server.ReadFrom(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a packet came through the firewall: %v", err)
	}
}

func TestBrowserRunsOnAnotherHost(t *testing.T) {
	Tool(t, "chromium")
	server, client := NewNamespace(t, "server"), NewNamespace(t, "client")
	server.Link("10.1.0.1/24", client, "10.1.0.2/24")
	var listener net.Listener
	if err := server.Do(func() (err error) {
		listener, err = net.Listen("tcp4", "10.1.0.1:80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	site := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RemoteAddr)
	})}}
	site.Start()
	defer site.Close()
	page := NewBrowser(t, InNamespace(client)).Page(t, "client")
	page.Open("http://10.1.0.1/")
	var from string
	page.MustEval("document.body.textContent", &from)
	if !strings.HasPrefix(from, "10.1.0.2:") {
		t.Errorf("the page was fetched from %q", from)
	}
}
