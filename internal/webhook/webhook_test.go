package webhook

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// hook is a receiver.
type hook struct {
	*httptest.Server
	mu   sync.Mutex
	got  []string            // bodies that were taken; guarded by mu
	seen map[string][]string // Callbox-Event by body, of every try; guarded by mu
}

// newHook takes an event where answer, called for each try, returns 200.
func newHook(t *testing.T, answer func(body string, w http.ResponseWriter) int) *hook {
	t.Helper()
	h := &hook{seen: make(map[string][]string)}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		body := string(b)
		h.mu.Lock()
		h.seen[body] = append(h.seen[body], r.Header.Get(HeaderID))
		h.mu.Unlock()
		code := answer(body, w)
		if code == http.StatusOK {
			h.mu.Lock()
			h.got = append(h.got, body)
			h.mu.Unlock()
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) taken() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.got...)
}

func start(t *testing.T, cfg Config) *Sender {
	t.Helper()
	if cfg.Sign == nil {
		cfg.Sign = func() (string, string, bool) { return "k1", "secret", true }
	}
	if cfg.Linger == 0 {
		cfg.Linger = 5 * time.Millisecond
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 5 * time.Millisecond
	}
	s := New(cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Close(ctx)
	})
	return s
}

func event(key string, rank int, text string) Event {
	return Event{Key: key, Rank: uint64(rank), Body: func(string) []byte { return []byte(text) }}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatal("never: " + what)
		}
	}
}

func ok(string, http.ResponseWriter) int { return http.StatusOK }

func TestRequestIsSigned(t *testing.T) {
	const id = "k1"
	type request struct {
		header http.Header
		body   string
	}
	got := make(chan request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- request{r.Header, string(b)}
	}))
	defer server.Close()
	s := start(t, Config{URLs: []string{server.URL}})
	s.Send(Event{Key: "tea", Body: func(id string) []byte { return []byte(`{"id":"` + id + `"}`) }})
	r := <-got
	timestamp := r.header.Get(HeaderTimestamp)
	var unix int64
	if _, err := fmt.Sscan(timestamp, &unix); err != nil || time.Since(time.Unix(unix, 0)).Abs() > time.Minute {
		t.Errorf("timestamp %q", timestamp)
	}
	if _, want := Sign("secret", time.Unix(unix, 0), []byte(r.body)); r.header.Get(HeaderSignature) != want {
		t.Errorf("signature %q, want %q", r.header.Get(HeaderSignature), want)
	}
	if r.header.Get(HeaderKey) != id || r.header.Get("Content-Type") != "application/json" || r.body != `{"id":"`+r.header.Get(HeaderID)+`"}` {
		t.Errorf("request: %v, %s", r.header, r.body)
	}
}

// The numbers were computed with another program: printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
func TestSignatureIsWhatTheDocumentSays(t *testing.T) {
	timestamp, signature := Sign("secret", time.Unix(1700000000, 0), []byte("{}"))
	if timestamp != "1700000000" || signature != "v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163" {
		t.Errorf("%s, %s", timestamp, signature)
	}
}

func TestOrderHoldsForAKeyThoughTriesFail(t *testing.T) {
	var n atomic.Int64
	h := newHook(t, func(string, http.ResponseWriter) int {
		if n.Add(1)%3 == 0 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	s := start(t, Config{URLs: []string{h.URL}})
	const keys, each = 20, 20
	for i := range each {
		for k := range keys {
			s.Send(event(fmt.Sprint(k), i, fmt.Sprintf("%d %d", k, i)))
		}
	}
	eventually(t, "all are delivered", func() bool { return len(h.taken()) >= keys*each })
	next := make(map[int]int)
	for _, body := range h.taken() {
		var k, i int
		if _, err := fmt.Sscan(body, &k, &i); err != nil || next[k] != i {
			t.Fatalf("%q, want number %d of key %d", body, next[k], k)
		}
		next[k]++
	}
	if st := s.Stats(); st.Sent != keys*each || st.Retried == 0 || st.Queued != 0 || len(st.Dropped) != 0 {
		t.Errorf("stats: %+v", st)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for body, ids := range h.seen {
		for _, id := range ids {
			if id == "" || id != ids[0] {
				t.Errorf("%q came as %q", body, ids)
			}
		}
	}
}

func TestEarlierEventThatComesLateGoesFirst(t *testing.T) {
	h := newHook(t, ok)
	s := start(t, Config{URLs: []string{h.URL}, Linger: 300 * time.Millisecond})
	s.Send(event("tea", 3, "third"))
	s.Send(event("tea", 1, "first"))
	s.Send(event("tea", 2, "second"))
	s.Send(event("tea", 3, "fourth"))
	eventually(t, "all are delivered", func() bool { return len(h.taken()) == 4 })
	if got := strings.Join(h.taken(), " "); got != "first second third fourth" {
		t.Errorf("order: %s", got)
	}
}

func TestHangingReceiverHoldsNobodyUp(t *testing.T) {
	release := make(chan struct{})
	hang := newHook(t, func(string, http.ResponseWriter) int { <-release; return http.StatusOK })
	defer close(release)
	good := newHook(t, ok)
	s := start(t, Config{URLs: []string{hang.URL, good.URL}, Queue: 100, Timeout: 100 * time.Millisecond, Expire: 300 * time.Millisecond})
	const burst = 1000
	begun := time.Now()
	for i := range burst {
		s.Send(event(fmt.Sprint(i), i, fmt.Sprint(i)))
	}
	if took := time.Since(begun); took > patience {
		t.Errorf("to hand over took %v", took)
	}
	// Each receiver has a queue of its own, which is bounded.
	if st := s.Stats(); st.Queued > 200 || st.Dropped[dropFull] < burst-100 {
		t.Errorf("stats: %+v", st)
	}
	eventually(t, "the other gets what fitted", func() bool { return len(good.taken()) >= 50 })
	eventually(t, "the hanging one's events expire", func() bool { return s.Stats().Dropped[dropExpired] > 0 })
}

func TestRedirectIsNotFollowed(t *testing.T) {
	elsewhere := newHook(t, ok)
	h := newHook(t, func(_ string, w http.ResponseWriter) int {
		w.Header().Set("Location", elsewhere.URL)
		return http.StatusTemporaryRedirect
	})
	s := start(t, Config{URLs: []string{h.URL}, Expire: 50 * time.Millisecond})
	s.Send(event("tea", 1, "x"))
	eventually(t, "it is given up", func() bool { return s.Stats().Dropped[dropExpired] == 1 })
	if got := elsewhere.taken(); len(got) > 0 {
		t.Errorf("the redirect was followed: %q", got)
	}
}

func TestRefusalIsFinalAndDoesNotHoldUpTheNext(t *testing.T) {
	h := newHook(t, func(body string, _ http.ResponseWriter) int {
		if body == "bad" {
			return http.StatusBadRequest
		}
		return http.StatusOK
	})
	s := start(t, Config{URLs: []string{h.URL}})
	s.Send(event("tea", 1, "bad"))
	s.Send(event("tea", 2, "good"))
	eventually(t, "the next is delivered", func() bool { return len(h.taken()) == 1 })
	if st := s.Stats(); st.Dropped[dropRefused] != 1 || st.Sent != 1 || st.Retried != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestEndlessAnswerIsNotRead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 32<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	s := start(t, Config{URLs: []string{server.URL}})
	s.Send(event("tea", 1, "x"))
	eventually(t, "it counts as taken", func() bool { return s.Stats().Sent == 1 })
}

// lockedBuffer takes a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func TestReceiverThatIsNotThereIsSaidOnceWithoutItsPath(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	var log lockedBuffer
	s := start(t, Config{
		URLs: []string{dead.URL + "/hidden?hidden=1"}, Expire: 200 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	s.Send(event("tea", 1, "x"))
	s.Send(event("tea", 2, "y"))
	eventually(t, "both are given up", func() bool { return s.Stats().Dropped[dropExpired] == 2 })
	log.mu.Lock()
	defer log.mu.Unlock()
	text := log.b.String()
	if strings.Contains(text, "hidden") || strings.Count(text, "level=WARN msg=\"webhook event not delivered") != 1 || !strings.Contains(text, "level=DEBUG") {
		t.Error(text)
	}
}

func TestWithoutKeyNothingIsSent(t *testing.T) {
	h := newHook(t, ok)
	s := start(t, Config{URLs: []string{h.URL}, Sign: func() (string, string, bool) { return "", "", false }})
	s.Send(event("tea", 1, "x"))
	eventually(t, "it is dropped", func() bool { return s.Stats().Dropped[dropNoKey] == 1 })
	if got := h.taken(); len(got) > 0 {
		t.Errorf("sent: %q", got)
	}
}

func TestCloseTriesOnceWhatIsLeft(t *testing.T) {
	h := newHook(t, ok)
	s := New(Config{URLs: []string{h.URL}, Linger: time.Hour, Sign: func() (string, string, bool) { return "k", "s", true }})
	for i := range 20 {
		s.Send(event(fmt.Sprint(i), i, fmt.Sprint(i)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.Close(ctx)
	if got := h.taken(); len(got) != 20 {
		t.Errorf("%d delivered", len(got))
	}
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	s = New(Config{URLs: []string{dead.URL}, Linger: time.Hour, Sign: func() (string, string, bool) { return "k", "s", true }})
	s.Send(event("tea", 1, "x"))
	s.Close(ctx)
	if st := s.Stats(); st.Dropped[dropStopped] != 1 || st.Queued != 0 {
		t.Errorf("stats: %+v", st)
	}
}
