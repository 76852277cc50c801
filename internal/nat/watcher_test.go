package nat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callbox/internal/router"
)

// fakeRouter keeps its mappings in memory.
type fakeRouter struct {
	mu     sync.Mutex
	wan    string
	table  map[router.Port]time.Time // until when
	fails  map[router.Port]error
	room   int
	gone   bool // answers nothing
	forgot bool
	maps   int
}

func newFake() *fakeRouter {
	return &fakeRouter{wan: "203.0.113.5", table: map[router.Port]time.Time{}, fails: map[router.Port]error{}, room: 100}
}

func (f *fakeRouter) set(change func()) { f.mu.Lock(); defer f.mu.Unlock(); change() }

func (f *fakeRouter) Kind() router.Kind   { return router.NATPMP }
func (f *fakeRouter) Name() string        { return "" }
func (f *fakeRouter) Gateway() netip.Addr { return netip.MustParseAddr("192.168.1.1") }
func (f *fakeRouter) Local() netip.Addr   { return netip.MustParseAddr("192.168.1.7") }

func (f *fakeRouter) External(context.Context) (netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return netip.Addr{}, errors.New("no answer")
	}
	return netip.MustParseAddr(f.wan), nil
}

func (f *fakeRouter) Map(_ context.Context, p router.Port, lease time.Duration, now time.Time) (router.Mapping, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.maps++
	if err := f.fails[p]; err != nil {
		return router.Mapping{}, err
	}
	if _, held := f.table[p]; !held && len(f.table) >= f.room {
		return router.Mapping{}, router.ErrFull
	}
	f.table[p] = now.Add(lease)
	return router.Mapping{Port: p, Until: f.table[p]}, nil
}

func (f *fakeRouter) Unmap(_ context.Context, p router.Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.table, p)
	return nil
}

func (f *fakeRouter) Lost(context.Context, router.Port) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.forgot
	f.forgot = false
	return was
}

func (f *fakeRouter) find(context.Context) (Forwarder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return nil, router.ErrNone
	}
	return f, nil
}

func (f *fakeRouter) forwards() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(len(f.table))
}

var (
	tcp  = router.Port{Protocol: "tcp", Number: 8080}
	udp  = router.Port{Protocol: "udp", Number: 8080}
	home = addrs("127.0.0.1", "192.168.1.7")
)

// wished is what most tests want.
func wished() Wish {
	w := Wish{Need: []router.Port{tcp, udp}}
	for n := uint16(50000); n < 50004; n++ {
		w.Extra = append(w.Extra, router.Port{Protocol: "udp", Number: n})
	}
	return w
}

// watched is a Watcher in a synctest bubble that asks a fake router alone.
type watched struct {
	*Watcher
	router *fakeRouter
	log    *bytes.Buffer
	cancel func()
	done   chan struct{}

	mu      sync.Mutex
	wish    Wish
	host    []netip.Addr
	reports []Report
}

func watch(t *testing.T, f *fakeRouter, wish Wish) *watched {
	w := &watched{router: f, log: &bytes.Buffer{}, wish: wish, host: home, done: make(chan struct{})}
	get := func(read func()) { w.mu.Lock(); defer w.mu.Unlock(); read() }
	w.Watcher = NewWatcher(WatcherConfig{
		Probe: func() Config {
			return Config{Router: f.find, Host: func() (out []netip.Addr) { get(func() { out = w.host }); return out }}
		},
		Wish:    func() (out Wish) { get(func() { out = w.wish }); return out },
		Changed: func(r Report) { get(func() { w.reports = append(w.reports, r) }) },
		Log:     slog.New(slog.NewTextHandler(w.log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	go func() { defer close(w.done); w.Run(ctx) }()
	synctest.Wait()
	return w
}

func (w *watched) stop() {
	w.cancel()
	<-w.done
}

func (w *watched) changes() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.reports) }

// sleep lets the bubble's clock go on.
func sleep(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestPortsAreForwardedRenewedAndGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newFake(), wished())
		r := w.State()
		if got := r.Router.Ports(); got != "8080/tcp 8080/udp 50000-50003/udp" {
			t.Errorf("forwards %q", got)
		}
		if r.IPv4.Public.String() != "203.0.113.5" || r.IPv4.Source != "router" || r.Router.Lease != time.Hour || !r.Forwards(udp) {
			t.Errorf("report %+v", r)
		}
		first := w.router.maps
		// The leases hold over a day, and half an hour before their end at the least.
		for range 24 * 12 {
			sleep(5 * time.Minute)
			w.router.set(func() {
				for p, until := range w.router.table {
					if left := time.Until(until); left < 20*time.Minute {
						t.Fatalf("%s ends in %v", p, left)
					}
				}
			})
		}
		if w.router.maps == first || w.router.maps > first+6*24*3 {
			t.Errorf("renewed %d times a day", w.router.maps-first)
		}
		if w.changes() != 1 || strings.Count(w.log.String(), "\n") != 1 {
			t.Errorf("%d changes, log:\n%s", w.changes(), w.log)
		}
		w.stop()
		if w.router.forwards() != "0" {
			t.Errorf("left behind %v", w.router.table)
		}
	})
}

func TestNothingIsForwardedUntilItIsWished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newFake(), Wish{})
		sleep(time.Hour)
		if w.router.maps != 0 {
			t.Error("forwarded before it was wished")
		}
		w.mu.Lock()
		w.wish = wished()
		w.mu.Unlock()
		sleep(2 * time.Second)
		if w.router.forwards() != "6" || !w.State().Forwards(tcp) {
			t.Errorf("forwards %s", w.router.forwards())
		}
		w.mu.Lock()
		w.wish = Wish{}
		w.mu.Unlock()
		sleep(2 * time.Second)
		if w.router.forwards() != "0" || len(w.State().Router.Mappings) != 0 {
			t.Errorf("forwards %s although nobody wishes it any more", w.router.forwards())
		}
		w.stop()
	})
}

func TestRouterThatForgetsIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newFake(), wished())
		for name, happens := range map[string]func(){
			"it says so":              func() { w.router.forgot = true },
			"its address has changed": func() { w.router.wan = "203.0.113.99" },
		} {
			w.router.set(func() { clear(w.router.table); happens() })
			sleep(7 * time.Minute)
			if w.router.forwards() != "6" {
				t.Errorf("%s: forwards %s", name, w.router.forwards())
			}
		}
		w.router.set(func() { w.router.gone = true; clear(w.router.table) })
		sleep(20 * time.Minute)
		if r := w.State(); r.Router.Found || len(r.Router.Mappings) != 0 || r.IPv4.Public.String() != "203.0.113.99" {
			t.Errorf("while it is away: %+v", r)
		}
		w.router.set(func() { w.router.gone = false })
		sleep(7 * time.Minute)
		if w.router.forwards() != "6" {
			t.Errorf("after its return: forwards %s", w.router.forwards())
		}
		// One that starts anew is back soon.
		w.router.set(func() { w.router.gone = true; clear(w.router.table) })
		w.Look()
		sleep(time.Second)
		w.router.set(func() { w.router.gone = false })
		sleep(30 * time.Second)
		if w.router.forwards() != "6" {
			t.Errorf("half a minute later: forwards %s", w.router.forwards())
		}
		w.stop()
	})
}

func TestPortThatIsTakenIsToldWithARemedy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fails[tcp] = fmt.Errorf("%w: it goes to 192.168.1.99", router.ErrConflict)
		w := watch(t, f, wished())
		r := w.State().Router
		if r.Fault != FaultConflict || !strings.Contains(r.Err, "192.168.1.99") || !strings.Contains(r.Err, "--listen") || r.Ports() != "8080/udp" {
			t.Errorf("got %+v", r)
		}
		sleep(time.Hour)
		if n := strings.Count(w.log.String(), "level=WARN"); n != 1 {
			t.Errorf("said %d times", n)
		}
		f.set(func() { delete(f.fails, tcp) })
		w.Look()
		sleep(time.Second)
		if r := w.State().Router; r.Fault != "" || r.Err != "" || len(r.Mappings) != 6 {
			t.Errorf("after it was freed: %+v", r)
		}
		w.stop()
	})
}

func TestRouterWithLittleRoomForwardsWhatItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.room = 4
		w := watch(t, f, wished())
		if r := w.State().Router; r.Ports() != "8080/tcp 8080/udp 50000-50001/udp" || r.Fault != "" {
			t.Errorf("got %+v", r)
		}
		w.stop()
	})
}

func TestNewAddressIsTakenOverAndASilenceIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newFake(), Wish{})
		w.router.set(func() { w.router.wan = "203.0.113.77" })
		sleep(7 * time.Minute)
		if got := w.State().Addrs(); len(got) != 1 || got[0].String() != "203.0.113.77" || w.changes() != 2 {
			t.Errorf("got %v after %d changes", got, w.changes())
		}
		w.router.set(func() { w.router.gone = true })
		sleep(time.Hour)
		if got := w.State().Addrs(); len(got) != 1 || got[0].String() != "203.0.113.77" {
			t.Errorf("forgotten: %v", got)
		}
		// In another network the old address means nothing.
		w.mu.Lock()
		w.host = addrs("127.0.0.1", "10.1.1.1")
		w.mu.Unlock()
		w.Look()
		sleep(time.Second)
		if got := w.State().Addrs(); len(got) != 0 {
			t.Errorf("kept in another network: %v", got)
		}
		w.stop()
	})
}

func TestWithoutAnyAnswerOneLineIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.gone = true
		w := watch(t, f, wished())
		sleep(24 * time.Hour)
		if n := strings.Count(w.log.String(), "\n"); n != 1 || !strings.Contains(w.log.String(), "level=INFO") {
			t.Errorf("%d lines:\n%s", n, w.log)
		}
		w.stop()
	})
}

func TestHostWithAPublicAddressNeedsNoRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newFake(), wished())
		w.mu.Lock()
		w.host = addrs("127.0.0.1", "203.0.113.5")
		w.mu.Unlock()
		w.Look()
		sleep(time.Second)
		if r := w.State(); r.IPv4.Mapping != None || len(r.Addrs()) != 0 || len(r.Router.Mappings) != 0 {
			t.Errorf("got %+v", r)
		}
		w.stop()
	})
}
