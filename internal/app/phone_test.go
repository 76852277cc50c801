package app

import (
	"context"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"callbox/auth"
	"callbox/internal/control"
	"callbox/internal/doctor"
	"callbox/static"
)

// waiting is a probe in the terminal's place.
type waiting struct {
	lines chan control.PhoneLine
	ended chan error
	hang  context.CancelFunc
}

func (r *running) waitForPhone() *waiting {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &waiting{lines: make(chan control.PhoneLine, 100), ended: make(chan error, 1), hang: cancel}
	go func() {
		w.ended <- control.NewClient(r.data).Phone(ctx, func(l control.PhoneLine) { w.lines <- l })
	}()
	r.t.Cleanup(cancel)
	return w
}

// next is the next line of the terminal.
func (w *waiting) next(t *testing.T) control.PhoneLine {
	t.Helper()
	select {
	case l := <-w.lines:
		return l
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is told")
		return control.PhoneLine{}
	}
}

var phoneConfigIn = regexp.MustCompile(`(?s)id="config">(.*?)</script>`)

func phoneConfigOf(t *testing.T, page string) (c static.PhoneConfig) {
	t.Helper()
	found := phoneConfigIn.FindStringSubmatch(page)
	if found == nil || json.Unmarshal([]byte(html.UnescapeString(found[1])), &c) != nil {
		t.Fatalf("no configuration in %s", page)
	}
	return c
}

// allocates says whether a credential may make allocations.
func (r *running) allocates(username string) bool {
	_, _, err := r.turnKeys(username, "callbox", true)
	return err == nil
}

// TestPhoneProbe is a whole one: nobody without the link gets anything, the first browser does, and what it says is told.
func TestPhoneProbe(t *testing.T) {
	r := serve(t, nil)
	w := r.waitForPhone()
	link := w.next(t).Link
	if link == nil || link.Note == "" || time.Until(link.Expires) > phoneLife {
		t.Fatalf("%+v", link)
	}
	at, err := url.Parse(link.URL)
	if err != nil || at.Scheme != "https" || !strings.HasPrefix(at.Path, phonePath) || len(at.Path) < len(phonePath)+26 {
		t.Fatalf("%v %v", at, err)
	}
	phone, other := r.browser(), r.browser()

	for _, path := range []string{phonePath, phonePath + "x", at.Path[:len(at.Path)-1], phonePath + "x/ws"} {
		if a := r.get(phone, path); a.Status != http.StatusNotFound || strings.Contains(a.Body, "turn:") {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	if a := r.do(phone, http.MethodPost, at.Path, `{"step":"STUN","ok":true}`, "Content-Type", "application/json"); a.Status != http.StatusNotFound {
		t.Errorf("a result before the page was opened: %d", a.Status)
	}

	page := r.get(phone, link.URL)
	if page.Status != http.StatusOK || page.Header.Get("Content-Security-Policy") != static.ContentSecurityPolicy || page.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", page.Status, page.Header)
	}
	c := phoneConfigOf(t, page.Body)
	if c.UDP != "turn:"+r.Addr().String()+"?transport=udp" || c.TLS != "turns:"+r.Addr().String()+"?transport=tcp" || !r.allocates(c.Username) {
		t.Errorf("%+v", c)
	}
	if l := w.next(t); l.Opened != "127.0.0.1" {
		t.Errorf("%+v", l)
	}
	if a := r.get(other, link.URL); a.Status != http.StatusNotFound || strings.Contains(a.Body, "turn:") {
		t.Errorf("another browser: %d %s", a.Status, a.Body)
	}
	if a := r.get(phone, link.URL); a.Status != http.StatusOK {
		t.Errorf("the same one again: %d", a.Status)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	socket := strings.Replace(link.URL, "https", "wss", 1) + "/ws"
	if conn, _, err := websocket.Dial(ctx, socket, &websocket.DialOptions{HTTPClient: other}); err == nil {
		conn.CloseNow()
		t.Error("a WebSocket for another browser")
	}
	conn, _, err := websocket.Dial(ctx, socket, &websocket.DialOptions{HTTPClient: phone})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.Read(ctx); err != nil || string(text) != "hello" {
		t.Errorf("%q %v", text, err)
	}

	post := func(body string) answer {
		return r.do(phone, http.MethodPost, link.URL, body, "Content-Type", "application/json")
	}
	for _, body := range []string{`{"step":"lunch","ok":true}`, `{"step":`, `[]`} {
		if a := post(body); a.Status != http.StatusBadRequest {
			t.Errorf("%s: %d", body, a.Status)
		}
	}
	for _, step := range doctor.PhoneSteps() {
		for range 2 { // the second time counts for nothing
			text, _ := json.Marshal(doctor.Tried{Step: step, OK: step != doctor.StepSTUN, Detail: "\x1b[2Jsaid"})
			if a := post(string(text)); a.Status != http.StatusNoContent && step != doctor.StepTLS {
				t.Errorf("%s: %d %s", text, a.Status, a.Body)
			}
		}
		l := w.next(t)
		if l.Check == nil || l.Check.Name != step || (l.Check.Verdict == doctor.Fail) != (step == doctor.StepSTUN) || strings.Contains(l.Check.Saw, "\x1b") {
			t.Errorf("%s: %+v", step, l)
		}
	}
	if l := w.next(t); l.Ended != control.PhoneDone {
		t.Errorf("%+v", l)
	}
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
	if a := r.get(phone, link.URL); a.Status != http.StatusNotFound {
		t.Errorf("the link after the end: %d", a.Status)
	}
	if r.allocates(c.Username) {
		t.Error("the credential outlives the probe")
	}
}

func TestOnePhoneAtATime(t *testing.T) {
	r := serve(t, nil)
	first := r.waitForPhone()
	first.next(t)
	var refusal *control.Error
	err := control.NewClient(r.data).Phone(t.Context(), func(control.PhoneLine) {})
	if refusal, _ = err.(*control.Error); refusal == nil || refusal.Code != control.CodeBusy {
		t.Fatalf("a second one: %v", err)
	}
	first.hang()
	if err := <-first.ended; err == nil {
		t.Error("hanging up is no end")
	}
	// The server notices soon, and then there may be another.
	eventually(t, func() bool {
		r.phones.mu.Lock()
		defer r.phones.mu.Unlock()
		return r.phones.probe == nil
	})
	again := r.waitForPhone()
	again.next(t)
	go func() { _ = r.stop() }()
	if l := again.next(t); l.Ended != control.PhoneStopping {
		t.Errorf("%+v", l)
	}
}

func TestPhoneLinkExpires(t *testing.T) {
	r := serve(t, nil)
	probe := r.phones.begin(time.Now())
	defer r.phones.end()
	req := func() *http.Request {
		q, err := http.NewRequest(http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.SetPathValue("token", probe.token)
		return q
	}
	if r.phones.find(req(), probe.expires.Add(-time.Second)) == nil {
		t.Error("ended early")
	}
	if r.phones.find(req(), probe.expires) != nil {
		t.Error("does not end")
	}
	// A user's credential has nothing to do with it.
	user, _, _ := r.live.Load().turn.Credential(auth.Handle(r.secrets.Master, "ada", "s"), time.Minute, time.Now())
	if !r.allocates(user) {
		t.Error("a user's credential is refused")
	}
}

// TestExaminedServerSaysSo: /readyz for those who may know, and the metrics.
func TestExaminedServerSaysSo(t *testing.T) {
	r := serve(t, nil)
	if r.doctor.readiness() != nil {
		t.Fatal("examined before anybody asked")
	}
	report, err := control.NewClient(r.data).Doctor(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := r.doctor.readiness()
	if got == nil || got.Verdict != string(report.Worst()) || len(got.Fail) != len(report.With(doctor.Fail)) {
		t.Errorf("%+v of %+v", got, report)
	}
	if stats := r.doctor.stats(); stats.At.IsZero() || len(stats.Checks) != len(report.Checks) {
		t.Errorf("%+v", stats)
	}
}

// TestRounds: at the start, again after the pause, and after a change, once that has settled.
func TestRounds(t *testing.T) {
	r := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { r.doctor.rounds(ctx, 50*time.Millisecond); close(ended) }()
	eventually(t, func() bool { return r.doctor.last.Load() != nil })
	first := r.doctor.last.Load()
	eventually(t, func() bool { return r.doctor.last.Load() != first })
	cancel()
	<-ended
	r.doctor.rounds(t.Context(), 0) // never

	ctx, cancel = context.WithCancel(t.Context())
	ended = make(chan struct{})
	r.doctor.settle = 50 * time.Millisecond
	last := r.doctor.last.Load()
	go func() { r.doctor.rounds(ctx, time.Hour); close(ended) }()
	eventually(t, func() bool { return r.doctor.last.Load() != last })
	last = r.doctor.last.Load()
	r.moved(r.live.Load().addrs)
	eventually(t, func() bool { return r.doctor.last.Load() != last })
	cancel()
	<-ended
}
