package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"callbox/bus"
	"callbox/bus/bustest"
)

func TestMain(m *testing.M) {
	if os.Getenv(nodeProcessURL) != "" {
		nodeProcess()
		return
	}
	// rueidis' cluster client keeps connections to shards that are gone for five
	// seconds, and delays refreshes; both sleep on after it is closed.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// server is a redis-server of the test's own.
type server struct {
	conf string // of a sentinel; which rewrites it
	port int
	dir  string
	args []string
	cmd  *exec.Cmd
	done chan struct{}
}

func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("redis-server is missing: apt-get install redis-server")
		}
		t.Skip("redis-server is missing: apt-get install redis-server")
	}
	return launch(t, &server{dir: t.TempDir(), args: args})
}

// startSentinel starts one on that configuration file.
func startSentinel(t testing.TB, conf string) *server {
	t.Helper()
	return launch(t, &server{conf: conf, dir: t.TempDir()})
}

func launch(t testing.TB, s *server) *server {
	t.Helper()
	for range 5 {
		s.port = freePort(t)
		if s.start() == nil {
			t.Cleanup(s.kill)
			return s
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// start starts it and waits until it answers.
func (s *server) start() error {
	args := []string{
		"--port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--logfile", filepath.Join(s.dir, "log"),
	}
	if s.conf != "" {
		args = append([]string{s.conf, "--sentinel"}, args...)
	} else {
		args = append(args, "--save", "", "--appendonly", "no")
	}
	s.cmd = exec.Command("redis-server", append(args, s.args...)...)
	if err := s.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	s.done = done
	cmd := s.cmd
	go func() {
		_ = cmd.Wait() // it is killed in the end: no status to look at
		close(done)
	}()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if c, err := net.DialTimeout("tcp", s.address(), time.Second); err == nil {
			_, err = c.Write([]byte("PING\r\n"))
			answer := make([]byte, 5)
			if err == nil {
				_, err = c.Read(answer)
			}
			c.Close()
			if err == nil && (bytes.Equal(answer, []byte("+PONG")) || bytes.HasPrefix(answer, []byte("-NOA"))) {
				return nil
			}
		}
		select {
		case <-done:
			return errors.New("redis-server has ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.kill()
	return errors.New("redis-server does not answer")
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

func (s *server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// proxy stands between one node and one address. While cut, nothing passes and
// nothing is refused.
type proxy struct {
	upstream string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed while packets pass
	conns map[net.Conn]bool
	ended bool
}

func newProxy(upstream string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{upstream: upstream, listener: l, open: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.open)
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		u, err := net.Dial("tcp", p.upstream)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		if p.ended {
			c.Close()
			u.Close()
		}
		p.conns[c], p.conns[u] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { p.pump(c, u) })
		p.wg.Go(func() { p.pump(u, c) })
	}
}

func (p *proxy) pump(from, to net.Conn) {
	defer func() {
		from.Close()
		to.Close()
		p.mu.Lock()
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		<-open
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

func (p *proxy) close() {
	p.heal()
	p.listener.Close()
	p.mu.Lock()
	p.ended = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// cluster is a bustest.Cluster over some Redis.
type cluster struct {
	url     string
	control rueidis.Client
	flush   func(t testing.TB)
	secret  []byte

	mu      sync.Mutex
	proxies map[bus.NodeID]*proxies
}

type proxies struct {
	mu   sync.Mutex
	cut  bool
	each map[string]*proxy
}

func (p *proxies) dial(ctx context.Context, address string) (net.Conn, error) {
	p.mu.Lock()
	x := p.each[address]
	if x == nil {
		var err error
		if x, err = newProxy(address); err != nil {
			p.mu.Unlock()
			return nil, err
		}
		if p.cut {
			x.cut()
		}
		p.each[address] = x
	}
	p.mu.Unlock()
	var d net.Dialer
	return d.DialContext(ctx, "tcp", x.listener.Addr().String())
}

func (p *proxies) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for _, x := range p.each {
		if cut {
			x.cut()
		} else {
			x.heal()
		}
	}
}

func (p *proxies) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.each {
		x.close()
	}
}

func newCluster(t testing.TB, url string, flush func(testing.TB)) *cluster {
	t.Helper()
	target, err := parseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	control, err := rueidis.NewClient(target.option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(control.Close)
	c := &cluster{url: url, control: control, flush: flush, secret: []byte("a cluster secret of the test"), proxies: map[bus.NodeID]*proxies{}}
	if c.flush == nil {
		c.flush = c.flushAll
	}
	return c
}

func (c *cluster) flushAll(t testing.TB) {
	for address, n := range c.control.Nodes() {
		if err := n.Do(context.Background(), n.B().Flushall().Build()).Error(); err != nil && !strings.Contains(err.Error(), "READONLY") {
			t.Fatalf("flush %s: %v", address, err)
		}
	}
}

func (c *cluster) Open(t testing.TB, name string, store *bus.Store) bus.Bus {
	t.Helper()
	p := &proxies{each: map[string]*proxy{}}
	t.Cleanup(p.close)
	b, err := Open(context.Background(), Config{URL: c.url, Name: name, Secret: c.secret, Store: store, dial: p.dial})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.proxies[b.Self()] = p
	c.mu.Unlock()
	return b
}

func (c *cluster) Kill(t testing.TB, b bus.Bus) {
	t.Helper()
	n := b.(*Bus)
	n.end(false)
	channel := n.keys.nodeChannel(n.self, n.term.Load())
	bustest.Eventually(t, 5*time.Second, "Redis to notice that the node's connections are gone", func() bool {
		cmd := c.control.B().PubsubNumsub().Channel(channel).Build()
		if n.cluster {
			return c.shardSubscribers(t, channel) == 0
		}
		m, err := c.control.Do(context.Background(), cmd).AsIntMap()
		return err == nil && m[channel] == 0
	})
}

func (c *cluster) shardSubscribers(t testing.TB, channel string) (sum int64) {
	for _, n := range c.control.Nodes() {
		m, err := n.Do(context.Background(), n.B().Arbitrary("PUBSUB", "SHARDNUMSUB", channel).Build()).AsIntMap()
		if err != nil {
			t.Fatal(err)
		}
		sum += m[channel]
	}
	return sum
}

func (c *cluster) node(b bus.Bus) *proxies {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proxies[b.Self()]
}

func (c *cluster) Cut(_ testing.TB, b bus.Bus)  { c.node(b).set(true) }
func (c *cluster) Heal(_ testing.TB, b bus.Bus) { c.node(b).set(false) }
func (c *cluster) Flush(t testing.TB)           { c.flush(t) }

// kill ends the connections of the nodes of that type.
func kill(t testing.TB, x *cluster, kind string) {
	t.Helper()
	cmd := x.control.B().Arbitrary("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes").Build()
	if err := x.control.Do(context.Background(), cmd).Error(); err != nil {
		t.Fatal(err)
	}
}

func TestConformanceMiniredis(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) bustest.Cluster {
		m := miniredis.RunT(t)
		return newCluster(t, "redis://"+m.Addr(), func(testing.TB) { m.FlushAll() })
	})
}

func TestConformanceRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	bustest.Run(t, func(t *testing.T) bustest.Cluster {
		c := newCluster(t, "redis://"+s.address(), nil)
		c.flushAll(t)
		return c
	})
}
