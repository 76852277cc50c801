package testkit

import (
	"net"
	"sync"
	"testing"
)

// Proxy passes TCP connections on to another address, and can stop passing anything while the connections stay open, as a network that drops packets does.
type Proxy struct {
	Addr string

	target   string
	listener net.Listener
	running  sync.WaitGroup // the accept loop and both directions of every connection

	mu     sync.Mutex
	heal   chan struct{}         // guarded by mu; not nil and open while cut
	closed bool                  // guarded by mu
	conns  map[net.Conn]struct{} // guarded by mu
}

// NewProxy starts a proxy on loopback in front of target (host:port).
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listener.Addr().String(), target: target, listener: listener, conns: map[net.Conn]struct{}{}}
	p.running.Add(1)
	go p.accept()
	t.Cleanup(p.close)
	return p
}

// Cut stops every byte in both directions. Nobody is told.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heal == nil {
		p.heal = make(chan struct{})
	}
}

// Heal lets everything through again, what was held back first.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heal != nil {
		close(p.heal)
		p.heal = nil
	}
}

// Reset closes every connection; new ones are accepted.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Heal()
	p.Reset()
	p.running.Wait()
}

func (p *Proxy) accept() {
	defer p.running.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Add(1)
		go p.serve(client)
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer p.running.Done()
	defer p.drop(client)
	if !p.keep(client) {
		return
	}
	p.wait()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.keep(server) {
		return
	}
	p.running.Add(1)
	go func() {
		defer p.running.Done()
		p.pass(client, server)
	}()
	p.pass(server, client)
}

// keep registers a connection for Reset; false when the proxy is closing.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

func (p *Proxy) wait() {
	p.mu.Lock()
	heal := p.heal
	p.mu.Unlock()
	if heal != nil {
		<-heal
	}
}

// pass copies one direction and closes both sides at its end, so that the other direction ends too.
func (p *Proxy) pass(to, from net.Conn) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	chunk := make([]byte, 32<<10)
	for {
		n, err := from.Read(chunk)
		p.wait()
		if n > 0 {
			if _, err := to.Write(chunk[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
