package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Browser is one Chromium process with a camera and a microphone that are made up, and a profile of its own.
type Browser struct {
	ctx context.Context
}

// BrowserOption changes how Chromium is started.
type BrowserOption = chromedp.ExecAllocatorOption

// IgnoreCertificates makes Chromium accept every certificate, for https: pages and for TURN over TLS.
func IgnoreCertificates() BrowserOption { return chromedp.Flag("ignore-certificate-errors", true) }

// InNamespace runs Chromium on another host.
func InNamespace(ns *Namespace) BrowserOption {
	return func(a *chromedp.ExecAllocator) {
		chromedp.Flag("allow-loopback-in-peer-connection", false)(a)
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			inside := ns.Command(cmd.Path, cmd.Args[1:]...)
			cmd.Path, cmd.Args = inside.Path, inside.Args
			endWithParent(cmd)
		})(a)
	}
}

// NewBrowser starts Chromium and stops it with the test.
func NewBrowser(t testing.TB, options ...BrowserOption) *Browser {
	t.Helper()
	flags := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(Tool(t, "chromium")),
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("headless", "new"),
		chromedp.Flag("no-sandbox", true),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true),
		chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("use-fake-device-for-media-stream", true),
		chromedp.Flag("use-fake-ui-for-media-stream", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.Flag("mute-audio", true),
		// Two pages of one machine without another network meet on loopback, and by address, since nobody answers mDNS here.
		chromedp.Flag("allow-loopback-in-peer-connection", true),
		chromedp.Flag("disable-features", "WebRtcHideLocalIpsWithMdns"),
		chromedp.WSURLReadTimeout(60 * time.Second),
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(flags, options...)...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		// Cancel waits for the process, so that nothing writes into the profile while it is removed.
		within, done := context.WithTimeout(ctx, 20*time.Second)
		_ = chromedp.Cancel(within)
		done()
		cancel()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return &Browser{ctx: ctx}
}

// Page is one tab of a user of its own: it shares no cookie and no storage with other pages.
type Page struct {
	Name string

	t   testing.TB
	ctx context.Context

	mu  sync.Mutex
	log []string // guarded by mu
}

// Page opens an empty tab for a new user. When the test has failed, its console and a screenshot are kept as artifacts, and
// the console is printed.
func (b *Browser) Page(t testing.TB, name string) *Page {
	t.Helper()
	p := &Page{Name: name, t: t}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.event))
	p.ctx = ctx
	t.Cleanup(func() {
		if t.Failed() {
			p.report()
		}
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("page %s: %v", name, err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatalf("page %s: %v", name, err)
	}
	return p
}

func (p *Page) event(ev any) {
	var line string
	switch ev := ev.(type) {
	case *cdpruntime.EventConsoleAPICalled:
		parts := []string{"console", string(ev.Type)}
		for _, arg := range ev.Args {
			switch {
			case len(arg.Value) > 0:
				parts = append(parts, string(arg.Value))
			default:
				parts = append(parts, arg.Description)
			}
		}
		line = strings.Join(parts, " ")
	case *cdpruntime.EventExceptionThrown:
		line = "exception " + (&chromedp.ExceptionError{ExceptionDetails: ev.ExceptionDetails}).Error()
	case *network.EventResponseReceived:
		line = fmt.Sprintf("http %d %s", ev.Response.Status, ev.Response.URL)
	case *network.EventLoadingFailed:
		line = "http failed " + ev.ErrorText
	case *network.EventWebSocketFrameReceived:
		line = "ws < " + shorten(ev.Response.PayloadData)
	case *network.EventWebSocketFrameSent:
		line = "ws > " + shorten(ev.Response.PayloadData)
	case *network.EventWebSocketFrameError:
		line = "ws error " + ev.ErrorMessage
	case *network.EventWebSocketClosed:
		line = "ws closed"
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.log) < 5000 {
		p.log = append(p.log, time.Now().Format("15:04:05.000 ")+line)
	}
}

func shorten(b []byte) string {
	if len(b) > 300 {
		return string(b[:300]) + "…"
	}
	return string(b)
}

// Log returns what the page printed, threw, fetched and carried over its WebSocket so far, one line an event.
func (p *Page) Log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

func (p *Page) report() {
	log := p.Log()
	if err := os.WriteFile(Artifact(p.t, p.Name+".log"), []byte(strings.Join(log, "\n")+"\n"), 0o600); err != nil {
		p.t.Logf("page %s: %v", p.Name, err)
	}
	if len(log) > 60 {
		log = log[len(log)-60:]
	}
	p.t.Logf("page %s:\n%s", p.Name, strings.Join(log, "\n"))
	path := Artifact(p.t, p.Name+".png")
	if err := p.Screenshot(path); err != nil {
		p.t.Logf("page %s: %v", p.Name, err)
		return
	}
	p.t.Logf("page %s: screenshot %s", p.Name, path)
}

// Screenshot writes what the page shows now as a PNG.
func (p *Page) Screenshot(path string) error {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		return fmt.Errorf("screenshot: %w", err)
	}
	return os.WriteFile(path, png, 0o600)
}

// Do runs chromedp actions and fails the test when they have not succeeded within a minute.
func (p *Page) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("page %s: %v", p.Name, err)
	}
}

// Try is Do within a time of the caller's, and returns the error.
func (p *Page) Try(within time.Duration, actions ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(p.ctx, within)
	defer cancel()
	return chromedp.Do(ctx, actions...)
}

// Open navigates and waits for the load event.
func (p *Page) Open(url string) {
	p.t.Helper()
	p.Do(chromedp.Navigate(url))
}

// Location returns the page's address.
func (p *Page) Location() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	url, err := chromedp.Run(ctx, chromedp.Location())
	if err != nil {
		p.t.Fatalf("page %s: %v", p.Name, err)
	}
	return url
}

// Eval runs a JavaScript expression in the page, waits for it when it is a promise, and decodes its value into result (nil: discarded).
func (p *Page) Eval(script string, result any) error {
	ctx, cancel := context.WithTimeout(p.ctx, 40*time.Second)
	defer cancel()
	// The expression is wrapped so that every outcome is a value: undefined has none of its own.
	wrapped := "(async () => { const v = await (" + script + "); return v === undefined ? null : v; })()"
	raw, err := chromedp.Run(ctx, chromedp.Evaluate[[]byte](wrapped, chromedp.EvalAwaitPromise))
	if err != nil {
		return fmt.Errorf("page %s: %w", p.Name, err)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return fmt.Errorf("page %s: %s: %w", p.Name, raw, err)
	}
	return nil
}

// MustEval is Eval that fails the test.
func (p *Page) MustEval(script string, result any) {
	p.t.Helper()
	if err := p.Eval(script, result); err != nil {
		p.t.Fatal(err)
	}
}

// Until waits for a JavaScript expression to be true.
func (p *Page) Until(within time.Duration, what, script string) {
	p.t.Helper()
	Eventually(p.t, within, p.Name+": "+what, func() error {
		var ok bool
		if err := p.Eval("!!("+script+")", &ok); err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("not yet: %s", script)
		}
		return nil
	})
}
